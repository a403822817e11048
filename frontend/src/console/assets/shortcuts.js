// Keys for those who like them. They do nothing while one writes, and can be turned off.

import { announce, dialog, h, tick } from "./dom.js";

const OFF = "carnax-shortcuts-off";
const GO = { t: "topics", g: "groups", c: "cluster", u: "usage", k: "tokens" };
const KEYS = [
  [["g", "t"], "Topics"],
  [["g", "g"], "Groups"],
  [["g", "c"], "Cluster"],
  [["g", "u"], "Usage and cost"],
  [["g", "k"], "Access tokens"],
  [["/"], "To the first field of the page"],
  [["p"], "Pause the live view, or go on"],
  [["↑", "↓", "Home", "End"], "From record to record, in the list"],
  [["Enter"], "See all of a record"],
  [["Esc"], "Close what is open"],
  [["?"], "This list"],
];
let leader = 0;

function areOff() {
  return localStorage.getItem(OFF) === "yes";
}

function help() {
  if (document.querySelector("dialog[open]")) return;
  const off = h("input", { type: "checkbox", checked: areOff(), change: () => localStorage.setItem(OFF, off.checked ? "yes" : "no") });
  const rows = KEYS.map(([keys, what]) =>
    h("tr", null, h("th", { scope: "row" }, keys.map((key, index) => [index > 0 ? " " : null, h("kbd", null, key)]).flat()), h("td", null, what)),
  );
  const table = h("table", { class: "keys" }, h("caption", { class: "hidden" }, "Keys and what they do"), h("tbody", null, rows));
  dialog("Keys of the keyboard", table, tick("Turn single keys off", off));
}

function press(event) {
  const writes = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || writes || areOff()) return;
  if (document.querySelector("dialog[open]")) return;
  const goes = performance.now() - leader < 1_500;
  leader = 0;
  if (goes && GO[event.key]) location.hash = `#/${GO[event.key]}`;
  else if (event.key === "g") leader = performance.now();
  else if (event.key === "?") help();
  else if (event.key === "/") document.querySelector("main input, main select")?.focus();
  else if (event.key === "p") document.querySelector("[data-key=p]")?.click();
  else return;
  event.preventDefault();
  if (event.key === "p") announce(document.querySelector("[data-key=p]")?.textContent ?? "");
}

export function listen(button) {
  button.addEventListener("click", help);
  document.addEventListener("keydown", press);
}
