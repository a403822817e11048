// Builds pages. Whatever comes from elsewhere goes in as text; there is no way here to put HTML into a page.

/** An element. Attributes that are functions listen to events; `true` sets an attribute, `false` and `null` leave it out. */
export function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (typeof value === "function") {
      element.addEventListener(name, value);
    } else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? "" : String(value));
    }
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The address of a page of the console. */
export function place(...parts) {
  return `#/${parts.map(encodeURIComponent).join("/")}`;
}

/** Says something to those who do not see the page change. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}

let ids = 0;

/** A form field with its label and, perhaps, a hint that is read out with it. */
export function field(label, input, hint) {
  ids += 1;
  input.id = `field-${ids}`;
  const hintElement = hint ? h("small", { id: `${input.id}-hint` }, hint) : null;
  if (hintElement) input.setAttribute("aria-describedby", hintElement.id);
  return h("div", { class: "field" }, h("label", { for: input.id }, label), input, hintElement);
}

/** A box to tick, with its label. */
export function tick(label, input) {
  return h("label", { class: "tick" }, input, label);
}

export function options(pairs, selected) {
  return pairs.map(([value, text]) => h("option", { value, selected: value === selected }, text));
}

/**
 * A table that is brought up to date in place, so that focus and selection stay where they are.
 *
 * A column is `{ title, cell, number, head, fixed }`: `cell` gives text, or, in a `fixed` column, an element that is made once a row.
 */
export class Table {
  constructor(caption, columns, key, empty = "Nothing here yet.") {
    this.columns = columns;
    this.key = key;
    this.rows = new Map();
    this.body = h("tbody");
    this.nothing = h("p", { class: "empty", hidden: true }, empty);
    const heads = columns.map(({ title, number }) => h("th", { scope: "col", class: number ? "number" : null }, title));
    this.table = h("table", null, h("caption", { class: "hidden" }, caption), h("thead", null, h("tr", null, heads)), this.body);
    const scroller = h("div", { class: "scroller", role: "region", "aria-label": caption, tabindex: "0" }, this.table);
    this.element = h("div", null, scroller, this.nothing);
    this.scroller = scroller;
  }

  update(rows) {
    const seen = new Set();
    let before = this.body.firstElementChild;
    for (const row of rows) {
      const key = String(this.key(row));
      seen.add(key);
      let element = this.rows.get(key);
      if (!element) {
        element = this.#make();
        this.rows.set(key, element);
      }
      this.#fill(element, row);
      if (element === before) before = before.nextElementSibling;
      else this.body.insertBefore(element, before);
    }
    for (const [key, element] of this.rows) {
      if (!seen.has(key)) {
        element.remove();
        this.rows.delete(key);
      }
    }
    this.nothing.hidden = rows.length > 0;
    this.scroller.hidden = rows.length === 0;
  }

  #make() {
    const cell = ({ head, number, title, mono }) => {
      const classes = [number ? "number" : "", mono ? "mono" : ""].join(" ").trim();
      return h(head ? "th" : "td", { scope: head ? "row" : null, class: classes || null, "data-title": title });
    };
    return h("tr", null, this.columns.map(cell));
  }

  #fill(element, row) {
    this.columns.forEach((column, index) => {
      const cell = element.children[index];
      if (column.fixed && cell.hasChildNodes()) return;
      const content = column.cell(row);
      if (content instanceof Node) cell.replaceChildren(content);
      else if (cell.textContent !== String(content)) cell.textContent = String(content);
    });
  }
}

/** Names with values. */
export function facts(pairs) {
  return h("dl", null, pairs.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

/** How a failure looks: what the server said, by what it can be found in its logs. */
export function failure(error) {
  const { detail, code, status, requestId } = error;
  const trace = [code ? `code ${code}` : null, status ? `status ${status}` : null, requestId ? `request ${requestId}` : null];
  const shown = trace.filter(Boolean).join(" · ");
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", null, h("strong", null, "That did not work: "), detail ?? error.message ?? String(error)),
    shown ? h("p", { class: "trace" }, shown) : null,
  );
}

/** A place for the outcome of something. */
export class Outcome {
  constructor() {
    this.element = h("div", { class: "outcome" });
  }

  clear() {
    this.element.replaceChildren();
  }

  failed(error) {
    if (error.name !== "AbortError") this.element.replaceChildren(failure(error));
  }

  succeeded(text, ...more) {
    announce(text);
    this.element.replaceChildren(h("div", { class: "success" }, h("p", null, text), more));
  }
}

/** Runs what a form is for; while it runs, the form says so and is not sent twice. */
export function submits(form, outcome, action) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    form.setAttribute("aria-busy", "true");
    outcome.clear();
    try {
      await action();
    } catch (error) {
      outcome.failed(error);
    } finally {
      form.removeAttribute("aria-busy");
    }
  });
}

/** A dialog that is gone when it is closed. */
export function dialog(title, ...children) {
  const heading = h("h2", { id: "dialog-title" }, title);
  const close = h("button", { type: "button", class: "close", click: () => element.close() }, "Close");
  const element = h("dialog", { "aria-labelledby": "dialog-title", close: () => element.remove() });
  element.append(h("div", { class: "dialog-head" }, heading, close), ...children.flat());
  document.body.append(element);
  element.showModal();
  return element;
}

/** Waits, at most until the page is left. */
export function pause(millis, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason);
    const left = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", left);
      resolve();
    }, millis);
    signal.addEventListener("abort", left, { once: true });
  });
}

/**
 * Does something at once, and then again and again until the page is left: never two at a time, never while nobody looks, and more
 * rarely while it fails. The first failure ends it unless it may pass.
 */
export async function repeat(millis, signal, task, failed) {
  let failures = 0;
  while (!signal.aborted) {
    try {
      if (!document.hidden) {
        await task();
        if (failures > 0) failed(null);
        failures = 0;
      }
    } catch (error) {
      if (signal.aborted) return;
      failures += 1;
      failed(error);
      if (error.status >= 400 && error.status < 500 && !error.retryable) return;
    }
    try {
      await pause(Math.min(millis * 2 ** Math.min(failures, 4), 30_000), signal);
    } catch {
      return;
    }
  }
}
