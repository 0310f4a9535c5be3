// A webhook receiver without dependencies: WEBHOOK_SECRET=whsec_... PORT=8080 node receiver.mjs
// With TRACKER_URL and TRACKER_KEY set it also asks for a link that anybody can open to each stored copy.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const key = Buffer.from(process.env.WEBHOOK_SECRET.replace(/^whsec_/, ""), "base64");
const { TRACKER_URL: api, TRACKER_KEY: apiKey } = process.env;
const seen = new Set(); // in production: a table with a unique key, written in the transaction that does the work
const newest = new Map();

function verify(headers, body) {
  const id = headers["webhook-id"], stamp = headers["webhook-timestamp"];
  if (!/^\d{1,12}$/.test(stamp ?? "") || Math.abs(Date.now() / 1000 - Number(stamp)) > 300) throw new Error("too old");
  const wanted = createHmac("sha256", key).update(`${id}.${stamp}.`).update(body).digest();
  const good = (headers["webhook-signature"] ?? "").split(" ").some((one) => {
    const given = Buffer.from(one.replace(/^v1,/, ""), "base64");
    return one.startsWith("v1,") && given.length === wanted.length && timingSafeEqual(given, wanted);
  });
  if (!good) throw new Error("no signature matches");
  return JSON.parse(body.toString("utf8"));
}

async function take(webhookId, { type, data }) {
  if (seen.has(webhookId)) return;
  seen.add(webhookId);
  if ((data.sequence ?? 1) < (newest.get(data.id) ?? 0)) return console.log(`stale ${type}`);
  if (data.sequence) newest.set(data.id, data.sequence);
  console.log(`event ${type} ${data.id ?? ""}`);
  if (type === "artifact.stored" && api) {
    const answer = await fetch(`${api}/v1/generations/${data.id}/artifacts/${data.artifact.kind}/link`, {
      method: "POST", headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" }, body: "{}",
    });
    console.log(`link ${(await answer.json()).url}`);
  }
}

const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces); // the bytes as they came: never parse before verifying
  try {
    const event = verify(request.headers, body);
    response.writeHead(204).end(); // answer first: the work must not make the sender wait
    await take(request.headers["webhook-id"], event);
  } catch (wrong) {
    console.log(`refused: ${wrong.message}`);
    if (!response.headersSent) response.writeHead(400).end();
  }
});
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
