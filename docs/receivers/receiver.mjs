// A webhook receiver without dependencies: WEBHOOK_SECRET=whsec_... PORT=8080 node receiver.mjs
// With TRACKER_URL and TRACKER_KEY set it also asks for a link that anybody can open to each stored copy.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const key = Buffer.from((process.env.WEBHOOK_SECRET ?? "").replace(/^whsec_/, ""), "base64");
if (key.length < 24) { // the least that Standard Webhooks allows; anybody could sign with an empty one
  console.error("WEBHOOK_SECRET is not set, or is no whsec_ secret");
  process.exit(1);
}
const { TRACKER_URL: api, TRACKER_KEY: apiKey } = process.env;
const LONGEST_BODY = 1 << 20;
const taken = new Map(); // in production: a table with a unique key, written in the transaction that does the work
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

// Do the work once, also when the same event comes twice at the same time. An event whose work fails must be welcome when it comes again.
function take(webhookId, event) {
  if (!taken.has(webhookId)) {
    taken.set(webhookId, work(event).catch((trouble) => {
      taken.delete(webhookId);
      throw trouble;
    }));
  }
  return taken.get(webhookId);
}

// What your program does. An older state never replaces a newer one; an event of an artifact is about that copy alone.
async function work({ type, data }) {
  if (data.sequence) {
    newest.set(data.id, Math.max(data.sequence, newest.get(data.id) ?? 0));
    if (type.startsWith("generation.") && data.sequence < newest.get(data.id)) return console.log(`stale ${type}`);
  }
  if (type === "artifact.stored" && api) console.log(`link ${await link(data.id, data.artifact)}`);
  console.log(`event ${type} ${data.id ?? ""}`);
}

async function link(generationId, { kind, index }) {
  const answer = await fetch(`${api}/v1/generations/${generationId}/artifacts/${kind}/${index}/link`, {
    method: "POST", headers: { authorization: `Bearer ${apiKey}`, "content-type": "application/json" }, body: "{}",
    signal: AbortSignal.timeout(10_000),
  });
  if (!answer.ok) throw new Error(`no link: HTTP ${answer.status}`);
  return (await answer.json()).url;
}

async function bytes(request) { // as they came: never parse before verifying
  const pieces = [];
  let size = 0;
  for await (const piece of request) {
    size += piece.length;
    if (size > LONGEST_BODY) throw new Error("too large");
    pieces.push(piece);
  }
  return Buffer.concat(pieces);
}

async function answer(request) {
  let event;
  try {
    event = verify(request.headers, await bytes(request));
  } catch (wrong) {
    console.log(`refused: ${wrong.message}`);
    return 400;
  }
  try {
    await take(request.headers["webhook-id"], event);
  } catch (trouble) { // whatever it was, the sender tries again
    console.log(`trouble: ${trouble.message}`);
    return 500;
  }
  return 204; // only now: what is answered never comes again
}

const server = createServer(async (request, response) => response.writeHead(await answer(request)).end());
server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
