// A webhook receiver on the standard library: WEBHOOK_SECRET=whsec_... PORT=8080 go run receiver.go
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
	} `json:"data"`
}

var (
	mutex  sync.Mutex
	seen   = map[string]bool{} // in production: a table with a unique key, written in the transaction that does the work
	newest = map[string]int{}
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

func take(id string, got event) {
	mutex.Lock()
	defer mutex.Unlock()
	if seen[id] {
		return
	}
	seen[id] = true
	if got.Data.Sequence > 0 {
		if got.Data.Sequence < newest[got.Data.ID] {
			fmt.Println("stale", got.Type)
			return
		}
		newest[got.Data.ID] = got.Data.Sequence
	}
	fmt.Println("event", got.Type, got.Data.ID)
}

func main() {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(os.Getenv("WEBHOOK_SECRET"), "whsec_"))
	if err != nil {
		log.Fatal(err)
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
		take(r.Header.Get("webhook-id"), got)
		w.WriteHeader(http.StatusNoContent)
	})))
}
