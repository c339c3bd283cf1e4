// The console's only script: copy buttons, and signing with a key that never leaves this browser.
// Every page works without it, except that signing needs it (Web Cryptography, Ed25519).
"use strict";

const utf8 = new TextEncoder();
const hex = (bytes) => Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes)));
const sha256 = async (bytes) => hex(await crypto.subtle.digest("SHA-256", bytes));

// RFC 8785 for the documents that are signed here: flat objects of strings, whole numbers and null. JSON.stringify
// writes those as the standard requires, and sort() orders names by UTF-16 code units, as it also requires. Any other
// value is refused.
function canonical(document) {
  for (const [name, value] of Object.entries(document)) {
    if (!(value === null || typeof value === "string" || Number.isSafeInteger(value))) {
      throw new Error(`A field of the document cannot be signed: ${name}.`);
    }
  }
  const names = Object.keys(document).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${JSON.stringify(document[name])}`).join(",")}}`;
}

async function signDocument(privateKey, document, context) {
  const digest = `sha256:${await sha256(utf8.encode(canonical(document)))}`;
  const message = utf8.encode(`countersign/${context}/1\n${digest}\n`);
  return base64(await crypto.subtle.sign("Ed25519", privateKey, message));
}

// One key for each account, kept by the browser. The private half is a CryptoKey that no script can export.
function keyStore(mode, work) {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("countersign", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction("keys", mode);
      const request = work(transaction.objectStore("keys"));
      transaction.oncomplete = () => { database.close(); resolve(request.result); };
      transaction.onerror = () => { database.close(); reject(transaction.error); };
    };
  });
}
const storedKey = (account) => keyStore("readonly", (keys) => keys.get(account));
const storeKey = (account, key) => keyStore("readwrite", (keys) => keys.put(key, account));

async function makeKey() {
  const pair = await crypto.subtle.generateKey({ name: "Ed25519" }, false, ["sign", "verify"]);
  const raw = await crypto.subtle.exportKey("raw", pair.publicKey);
  return { id: (await sha256(raw)).slice(0, 16), privateKey: pair.privateKey, publicKey: base64(raw) };
}

const canSign = () => Boolean(globalThis.crypto?.subtle && globalThis.indexedDB);
const NEEDS_HTTPS = "This browser can sign only at a secure address: HTTPS, or 127.0.0.1. Use a terminal instead.";
const say = (form, sentence) => { form.querySelector("[data-signing]").textContent = sentence; };
const fill = (form, values) => {
  for (const [name, value] of Object.entries(values)) form.elements[name].value = value;
};

async function setUpEnrolment(form) {
  const { account, keys } = form.dataset;
  if (!canSign()) return say(form, NEEDS_HTTPS);
  const present = await storedKey(account);
  const enrolled = keys.split(" ");
  if (present && enrolled.includes(present.id)) {
    return say(form, `This browser already holds your enrolled key ${present.id}.`);
  }
  const button = form.querySelector("button");
  button.disabled = false;
  say(form, present ? "This browser holds a key that is not enrolled yet." : "This browser holds no key of yours yet.");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      const key = present ?? await makeKey();
      await storeKey(account, key);
      const proof = await signDocument(key.privateKey, { account, public_key: key.publicKey }, "enrol");
      fill(form, { public_key: key.publicKey, proof });
      form.submit();
    } catch (error) {
      button.disabled = false;
      say(form, `The key could not be made: ${error.message}`);
    }
  });
  return undefined;
}

async function setUpDecision(form) {
  const { account, keys, draft } = form.dataset;
  if (!canSign()) return say(form, NEEDS_HTTPS);
  const key = await storedKey(account);
  if (!key || !keys.split(" ").includes(key.id)) {
    return say(form, "This browser holds no enrolled key of yours. Enrol one under Settings and keys first, or sign in a terminal.");
  }
  if (!form.querySelector(".signing.wrong")) say(form, `Your decision will be signed with your key ${key.id}.`);
  form.addEventListener("submit", async (event) => {
    const verdict = form.elements.verdict.value;
    const reason = form.elements.reason.value.trim();
    if (!verdict || !reason) return; // the server says what is missing, and keeps what was typed
    event.preventDefault();
    try {
      const salt = crypto.getRandomValues(new Uint8Array(16));
      const words = utf8.encode(reason);
      const salted = new Uint8Array(salt.length + words.length);
      salted.set(salt);
      salted.set(words, salt.length);
      const decision = { ...JSON.parse(draft), verdict, reason_commitment: `sha256:${await sha256(salted)}` };
      const signature = await signDocument(key.privateKey, decision, "decision");
      fill(form, { reason, decision: JSON.stringify(decision), salt: hex(salt), key: key.id, signature });
      form.submit();
    } catch (error) {
      say(form, `The decision could not be signed: ${error.message}`);
    }
  });
  return undefined;
}

function addCopyButton(element) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "copy";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy ${element.dataset.copy}`);
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(element.dataset.copy);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
  element.append(button);
}

// A part of a page that changes while work goes on: fetched again until it says that it has ended.
const LIVE_MILLISECONDS = 5000;
function keepLive(element) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(element.dataset.live, { headers: { accept: "text/html" }, redirect: "error" });
      if (!answer.ok) return;
      element.innerHTML = await answer.text();
      if (answer.headers.get("x-ended")) clearInterval(timer);
    } catch { /* the next look may succeed */ }
  }, LIVE_MILLISECONDS);
}

document.querySelectorAll("[data-live]").forEach(keepLive);
if (navigator.clipboard) document.querySelectorAll(".command[data-copy]").forEach(addCopyButton);
document.querySelectorAll("form[data-enrol]").forEach(setUpEnrolment);
document.querySelectorAll("form[data-sign]").forEach(setUpDecision);
document.querySelector("[aria-invalid], #trouble")?.focus();
