// An app in another language behind `cf-access dev --upstream`: it verifies the assertion with nothing but Node.
import { createPublicKey, verify } from "node:crypto";
import { createServer } from "node:http";

const team = process.env.CF_ACCESS_TEAM_DOMAIN;
const audiences = process.env.CF_ACCESS_AUDIENCE.split(",");

async function keyOf(kid) {
  const answer = await fetch(`${team}/cdn-cgi/access/certs`);
  const jwk = (await answer.json()).keys.find((key) => key.kid === kid);
  return jwk && createPublicKey({ key: jwk, format: "jwk" });
}

async function claimsOf(token) {
  const [header, payload, signature] = token.split(".");
  const { alg, kid } = JSON.parse(Buffer.from(header, "base64url"));
  const key = alg === "RS256" && (await keyOf(kid));
  const signed = Buffer.from(`${header}.${payload}`);
  if (!key || !verify("RSA-SHA256", signed, key, Buffer.from(signature, "base64url"))) return null;
  const claims = JSON.parse(Buffer.from(payload, "base64url"));
  const isForUs = claims.iss === team && claims.type === "app" && [claims.aud].flat().some((tag) => audiences.includes(tag));
  return isForUs && claims.exp > Date.now() / 1000 ? claims : null;
}

const server = createServer(async (request, response) => {
  const claims = await claimsOf(request.headers["cf-access-jwt-assertion"] ?? "..").catch(() => null);
  response.writeHead(claims ? 200 : 401, { "content-type": "text/plain" });
  response.end(claims ? `hello ${claims.email ?? claims.common_name}` : "no");
});

server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => console.log(server.address().port));
