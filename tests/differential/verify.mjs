// Cloudflare's documented verification for Node: tokens in on standard input, "accepted" or the error's code out.
import { text } from "node:stream/consumers";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { teamDomain, audience, tokens } = JSON.parse(await text(process.stdin));
const keys = createRemoteJWKSet(new URL(`${teamDomain}/cdn-cgi/access/certs`));

async function verdict(token) {
  try {
    await jwtVerify(token, keys, { issuer: teamDomain, audience });
    return "accepted";
  } catch (error) {
    return error.code ?? error.name;
  }
}

const verdicts = [];
for (const token of tokens) verdicts.push(await verdict(token));
console.log(JSON.stringify(verdicts));
