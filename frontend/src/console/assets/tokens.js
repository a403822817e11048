// Access tokens: who has which, a new one, and taking one back.

import { call, get, path } from "./api.js";
import { Outcome, Table, announce, dialog, failure, field, h, options, submits, tick } from "./dom.js";
import { time } from "./format.js";
import { copyText } from "./record.js";

const DAY = 86_400_000;
const PAGES_MAX = 20;
// What can be done to what.
const ON = {
  topics: ["read", "write", "create", "alter", "describe"],
  groups: ["group", "describe"],
  cluster: ["describe", "alter"],
  everything: ["admin"],
};

export async function tokens({ main, signal }) {
  const problem = h("div");
  const waiting = h("p", { class: "waiting" }, "Loading…");
  const table = new Table("Access tokens", columns((token) => revoke(token, load)), (token) => token.id, "There are no tokens: whoever reaches this address may do everything.");
  table.element.hidden = true;
  const load = async () => {
    table.update(await all(signal));
    table.element.hidden = false;
    problem.replaceChildren();
  };
  main.append(problem, waiting, table.element, creation(load));
  try {
    await load();
  } catch (error) {
    if (!signal.aborted) problem.replaceChildren(failure(error));
  } finally {
    waiting.remove();
  }
}

async function all(signal) {
  const found = [];
  let after = null;
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const told = await get(["tokens"], { after }, signal);
    found.push(...told.tokens);
    after = told.next_after ?? null;
    if (after === null) break;
  }
  return found;
}

function columns(remove) {
  return [
    { title: "Token", head: true, mono: true, cell: (token) => token.id },
    { title: "For", cell: (token) => token.description || "–" },
    { title: "May", cell: (token) => token.grants.map(describe).join("; ") },
    { title: "Created", cell: (token) => time(token.created) },
    { title: "Expires", cell: (token) => (token.expires ? time(token.expires) : "never") },
    { title: "Last used", cell: (token) => (token.last_used ? time(token.last_used) : "never") },
    {
      title: "Revoke",
      fixed: true,
      cell: (token) => h("button", { type: "button", "aria-label": `Revoke ${token.description || token.id}`, click: () => remove(token) }, "Revoke…"),
    },
  ];
}

function describe(grant) {
  if (grant.operations.includes("admin")) return "everything";
  const names = (kind, { name, prefix }) => {
    if (name !== undefined) return `${kind} ${name}`;
    return prefix === "" ? `all ${kind}s` : `${kind}s ${prefix}*`;
  };
  const on = [
    grant.topics ? names("topic", grant.topics) : null,
    grant.groups ? names("group", grant.groups) : null,
    grant.cluster ? "the cluster" : null,
  ].filter(Boolean);
  return `${grant.operations.join(", ")} on ${on.join(" and ")}`;
}

function revoke(token, done) {
  const outcome = new Outcome();
  const form = h("form", null, h("button", { class: "danger" }, "Revoke it"), outcome.element);
  const shown = dialog(
    "Revoke this token?",
    h("p", null, "Whoever uses ", h("strong", null, token.description || token.id), " (", h("code", null, token.id), ") is refused everywhere within ten seconds. That cannot be undone."),
    form,
  );
  submits(form, outcome, async () => {
    await call("DELETE", path(["tokens", token.id]));
    shown.close();
    announce("The token is revoked.");
    await done();
  });
}

function creation(done) {
  const description = h("input", { autocomplete: "off", maxlength: "200" });
  const expires = h("select", null, options([["", "never"], [DAY, "in a day"], [30 * DAY, "in 30 days"], [90 * DAY, "in 90 days"], [365 * DAY, "in a year"]].map(([value, text]) => [String(value), text]), String(90 * DAY)));
  const grants = h("div");
  const add = () => grants.append(grantFields());
  const outcome = new Outcome();
  const form = h(
    "form",
    { autocomplete: "off" },
    h("div", { class: "fields" }, field("What it is for", description), field("Expires", expires)),
    grants,
    h("p", { class: "buttons" }, h("button", { type: "button", click: add }, "Add another permission"), h("button", { class: "main" }, "Create the token")),
    outcome.element,
  );
  add();
  submits(form, outcome, async () => {
    const body = { description: description.value, grants: [...grants.children].map(read) };
    if (expires.value !== "") body.expires_in_ms = Number(expires.value);
    const made = await call("POST", path(["tokens"]), { body });
    form.reset();
    grants.replaceChildren();
    add();
    reveal(made);
    await done();
  });
  return h("details", { class: "card" }, h("summary", null, "Create a token"), form);
}

function grantFields() {
  const on = h("select", { name: "on" }, options([["topics", "topics"], ["groups", "groups"], ["cluster", "the cluster"], ["everything", "everything (administrator)"]], "topics"));
  const which = h("select", { name: "which" }, options([["prefix", "whose names begin with"], ["name", "with the name"]]));
  const name = h("input", { name: "name", autocomplete: "off", spellcheck: "false" });
  const boxes = h("div", { class: "ticks" });
  const [whichField, nameField] = [field("Which", which), field("Name or beginning", name, "An empty beginning: all.")];
  const fit = () => {
    const named = on.value === "topics" || on.value === "groups";
    whichField.hidden = nameField.hidden = !named;
    const checked = ON[on.value].length === 1;
    boxes.replaceChildren(...ON[on.value].map((operation) => tick(operation, h("input", { type: "checkbox", value: operation, checked }))));
  };
  on.addEventListener("change", fit);
  fit();
  return h("fieldset", null, h("legend", null, "Permission"), h("div", { class: "fields" }, field("On", on), whichField, nameField), boxes);
}

function read(fieldset) {
  const value = (name) => fieldset.querySelector(`[name=${name}]`).value;
  const operations = [...fieldset.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value);
  if (operations.length === 0) throw new Error("tick what the token may do");
  const on = value("on");
  if (on === "everything") return { operations };
  if (on === "cluster") return { operations, cluster: true };
  return { operations, [on]: { [value("which")]: value("name").trim() } };
}

/** The one time that the secret is shown. */
function reveal(made) {
  const secret = h("pre", { class: "secret", tabindex: "0", "aria-label": "The token" }, made.token);
  const shown = dialog(
    "The new token",
    h("p", null, "Copy it now: it is shown only this once, and kept nowhere."),
    secret,
    h("p", { class: "buttons" }, h("button", { type: "button", class: "main", click: () => copyText(made.token, secret) }, "Copy")),
  );
  shown.addEventListener("close", () => secret.replaceChildren());
}
