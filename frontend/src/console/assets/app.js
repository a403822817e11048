// Shows the page that the address names, and asks for a token when the server wants one.

import { call, onRefused, path, signIn, signOut, token } from "./api.js";
import { Outcome, announce, failure, field, h, submits } from "./dom.js";
import { cluster } from "./cluster.js";
import { group, groups } from "./groups.js";
import { records } from "./tail.js";
import { listen } from "./shortcuts.js";
import { tokens } from "./tokens.js";
import { topic } from "./topic.js";
import { topics } from "./topics.js";
import { usage } from "./usage.js";

const main = document.getElementById("main");
let current = new AbortController();

// By the parts of the address; `*` is a name.
const PAGES = [
  [["topics"], "Topics", topics],
  [["topics", "*"], "Topic", topic],
  [["topics", "*", "records"], "Records of", records],
  [["groups"], "Groups", groups],
  [["groups", "*"], "Group", group],
  [["cluster"], "Cluster", cluster],
  [["usage"], "Usage and cost", usage],
  [["tokens"], "Access tokens", tokens],
];

function parse(hash) {
  const [address, search] = hash.replace(/^#\/?/, "").split("?", 2);
  try {
    return { parts: address.split("/").filter(Boolean).map(decodeURIComponent), query: new URLSearchParams(search ?? "") };
  } catch {
    return { parts: ["?"], query: new URLSearchParams() };
  }
}

function find(parts) {
  const fits = ([pattern]) => pattern.length === parts.length && pattern.every((part, index) => part === "*" || part === parts[index]);
  return PAGES.find(fits);
}

/** Leaves the page that is shown: whatever it waits for ends. */
function leave() {
  current.abort(new DOMException("the page was left", "AbortError"));
  current = new AbortController();
  for (const open of document.querySelectorAll("dialog")) open.close();
  main.replaceChildren();
}

async function show({ first } = {}) {
  leave();
  const { signal } = current;
  const { parts, query } = parse(location.hash);
  if (parts.length === 0) {
    location.replace("#/topics");
    return;
  }
  const found = find(parts);
  const name = parts.length > 1 ? parts[1] : null;
  const title = found ? found[1] : "There is no such page";
  const heading = h("h1", { tabindex: "-1" }, title, name && found ? [" ", h("span", { class: "name" }, name)] : null);
  document.title = `${[title, found ? name : null].filter(Boolean).join(" ")} – Carnax`;
  mark(parts[0]);
  document.getElementById("sign-out").hidden = !token();
  main.append(heading);
  if (!first) {
    window.scrollTo(0, 0);
    heading.focus({ preventScroll: true });
  }
  if (!found) {
    main.append(h("p", null, h("a", { href: "#/topics" }, "Go to the topics")));
    return;
  }
  const content = h("div", { class: "content" });
  main.append(content);
  try {
    await found[2]({ main: content, name, query, signal });
  } catch (error) {
    if (!signal.aborted) content.append(failure(error), again());
  }
}

function again() {
  return h("button", { type: "button", click: () => show() }, "Try again");
}

function mark(section) {
  for (const link of document.querySelectorAll("header nav a")) {
    if (link.getAttribute("href") === `#/${section}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function askForToken(problem) {
  leave();
  const input = h("input", { type: "password", required: true, autocomplete: "off", spellcheck: "false", maxlength: "1024" });
  const outcome = new Outcome();
  const hint = "It stays in this tab and is forgotten when you close it. `carnax token create` makes one.";
  const form = h("form", { class: "card narrow", autocomplete: "off" }, field("Access token", input, hint), h("button", { class: "main" }, "Sign in"), outcome.element);
  submits(form, outcome, async () => {
    const text = input.value.trim();
    if (!/^[\x21-\x7e]+$/.test(text)) throw new Error("a token has no spaces and no special characters: carnax_ID_SECRET");
    signIn(text);
    try {
      await call("GET", path(["topics"], { limit: 1 }));
    } catch (error) {
      if (error.status === 401) return;
      throw error;
    }
    announce("You are signed in.");
    show();
  });
  const hadToken = Boolean(token());
  signOut();
  document.getElementById("sign-out").hidden = true;
  document.title = "Sign in – Carnax";
  main.append(h("h1", null, "Sign in"), form);
  if (hadToken) outcome.failed(problem);
  input.focus();
}

onRefused(askForToken);
window.addEventListener("hashchange", (event) => {
  if (new URL(event.newURL).hash !== "#main") show();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
document.getElementById("sign-out").addEventListener("click", () => {
  signOut();
  announce("You are signed out.");
  show();
});
listen(document.getElementById("help"));
show({ first: true });
