// A webhook receiver on the standard library: WEBHOOK_SECRET=whsec_... PORT=8080 go run receiver.go
// With TRACKER_URL and TRACKER_KEY set it also asks for a link that anybody can open to each stored copy.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

type event struct {
	Type string `json:"type"`
	Data struct {
		ID       string `json:"id"`
		Sequence int    `json:"sequence"`
		Artifact struct {
			Kind  string `json:"kind"`
			Index int    `json:"index"`
		} `json:"artifact"`
	} `json:"data"`
}

var (
	api, apiKey = os.Getenv("TRACKER_URL"), os.Getenv("TRACKER_KEY")
	client      = http.Client{Timeout: 10 * time.Second}
	mutex       sync.Mutex
	done        = map[string]bool{} // in production: a table with a unique key, written in the transaction that does the work
	newest      = map[string]int{}
)

func verify(key []byte, headers http.Header, body []byte) error {
	stamp := headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || math.Abs(float64(time.Now().Unix()-seconds)) > 300 {
		return errors.New("too old")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", headers.Get("webhook-id"), stamp, body)
	wanted := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	for _, one := range strings.Fields(headers.Get("webhook-signature")) {
		if hmac.Equal([]byte(one), []byte(wanted)) {
			return nil
		}
	}
	return errors.New("no signature matches")
}

// Do the work once. The id is kept when it is done: an event whose work fails must be welcome when it comes again.
func take(id string, got event) error {
	mutex.Lock()
	defer mutex.Unlock()
	if done[id] {
		return nil
	}
	if err := work(got); err != nil {
		return err
	}
	done[id] = true
	return nil
}

// What your program does. An older state never replaces a newer one; an event of an artifact is about that copy alone.
func work(got event) error {
	data := got.Data
	if data.Sequence > 0 {
		if data.Sequence > newest[data.ID] {
			newest[data.ID] = data.Sequence
		}
		if strings.HasPrefix(got.Type, "generation.") && data.Sequence < newest[data.ID] {
			fmt.Println("stale", got.Type)
			return nil
		}
	}
	if got.Type == "artifact.stored" && api != "" {
		url, err := link(got)
		if err != nil {
			return err
		}
		fmt.Println("link", url)
	}
	fmt.Println("event", got.Type, data.ID)
	return nil
}

func link(got event) (string, error) {
	copied := got.Data.Artifact
	path := fmt.Sprintf("%s/v1/generations/%s/artifacts/%s/%d/link", api, got.Data.ID, copied.Kind, copied.Index)
	request, err := http.NewRequest("POST", path, strings.NewReader("{}"))
	if err != nil {
		return "", err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", errors.New("no link: HTTP " + answer.Status)
	}
	var told struct {
		URL string `json:"url"`
	}
	err = json.NewDecoder(answer.Body).Decode(&told)
	return told.URL, err
}

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("WEBHOOK_SECRET"), "whsec_"))
	if err != nil || len(key) < 24 { // the least that Standard Webhooks allows; anybody could sign with an empty one
		log.Fatal("WEBHOOK_SECRET is not set, or is no whsec_ secret")
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening on", listener.Addr().(*net.TCPAddr).Port)
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // the bytes as they came: never parse before verifying
		if err == nil {
			err = verify(key, r.Header, body)
		}
		var got event
		if err == nil {
			err = json.Unmarshal(body, &got)
		}
		if err != nil {
			fmt.Println("refused:", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := take(r.Header.Get("webhook-id"), got); err != nil { // whatever it was, the sender tries again
			fmt.Println("trouble:", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent) // only now: what is answered never comes again
	})))
}
