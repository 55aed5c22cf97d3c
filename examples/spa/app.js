import { api, logInAgain } from "/session.js";

const refresh = async () => {
  const me = await (await api("/api/me")).json();
  document.querySelector("h1").innerText = `Hello ${me.email}`;
};

addEventListener("login-failed", () => {
  document.querySelector("[role=alert]").hidden = false;
});
document.querySelector("#again").onclick = logInAgain;
document.querySelector("#refresh").onclick = () => refresh().catch(() => {});
refresh().catch(() => {});
navigator.serviceWorker.register("/service-worker.js");
