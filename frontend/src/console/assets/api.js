// Speaks to the public HTTP API, with the token of whoever looks. The console has no other rights.

const TOKEN = "carnax-token";
const TIMEOUT = 30_000;
// The server says something at least every fifteen seconds.
const SILENCE = 60_000;
const LINE_MAX = 128 * 1024 * 1024;

/** What the server said no with. */
export class Problem extends Error {
  constructor(status, document, requestId) {
    super(document.detail ?? document.title ?? `the server answered ${status}`);
    this.name = "Problem";
    this.status = status;
    this.code = document.code;
    this.detail = this.message;
    this.retryable = document.retryable ?? status >= 500;
    this.sideEffects = document.side_effects;
    this.facts = document;
    this.requestId = document.request_id ?? requestId;
  }
}

/** Nobody answered. */
export class Unreachable extends Error {
  constructor(detail) {
    super(detail);
    this.name = "Unreachable";
    this.detail = detail;
    this.retryable = true;
    this.sideEffects = "possible";
  }
}

let refused = () => {};

/** What to do when the server wants a token, or another one. */
export function onRefused(listener) {
  refused = listener;
}

export function token() {
  return sessionStorage.getItem(TOKEN);
}

export function signIn(text) {
  sessionStorage.setItem(TOKEN, text);
}

export function signOut() {
  sessionStorage.removeItem(TOKEN);
}

/** A path of the API with its parts in their places: relative, so that the console also works behind a prefix. */
export function path(parts, query) {
  const text = ["v1", ...parts.map((part) => encodeURIComponent(part))].join("/");
  const search = new URLSearchParams(Object.entries(query ?? {}).filter(([, value]) => value !== null && value !== undefined));
  return search.size > 0 ? `${text}?${search}` : text;
}

export function get(parts, query, signal) {
  return call("GET", path(parts, query), { signal });
}

export async function call(method, target, { body, headers, signal } = {}) {
  const sent = { accept: "application/json", ...headers };
  if (body !== undefined) sent["content-type"] = "application/json";
  const timeout = AbortSignal.timeout(TIMEOUT);
  const response = await send(method, target, {
    headers: sent,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
    left: signal,
  });
  try {
    return await response.json();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Unreachable("the answer of the server could not be read");
  }
}

async function send(method, target, { headers, body, signal, left }) {
  const bearer = token();
  if (bearer) headers.authorization = `Bearer ${bearer}`;
  let response;
  try {
    response = await fetch(target, { method, headers, body, signal, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (left?.aborted) throw error;
    throw new Unreachable(error.name === "TimeoutError" ? "the server did not answer in time" : "the server cannot be reached");
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({}));
  const problem = new Problem(response.status, document, response.headers.get("carnax-request-id"));
  if (problem.status === 401) refused(problem);
  throw problem;
}

/** Reads server-sent events, as many at a time as have come; `EventSource` cannot show a token. */
export async function* events(target, { lastId, signal }) {
  const headers = { accept: "text/event-stream" };
  if (lastId !== null && lastId !== undefined) headers["last-event-id"] = String(lastId);
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE);
  const response = await send("GET", target, { headers, signal: AbortSignal.any([signal, silence.signal]), left: signal });
  const reader = response.body.getReader();
  const parser = new Parser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      yield parser.take(value);
      timer = setTimeout(() => silence.abort(), SILENCE);
    }
  } catch (error) {
    if (signal.aborted || error instanceof Unreachable) throw error;
    throw new Unreachable("the connection to the server broke");
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

class Parser {
  #decoder = new TextDecoder();
  #pieces = [];
  #length = 0;
  #event = { data: null };

  /** The events that are whole with these bytes. */
  take(bytes) {
    const found = [];
    const lines = this.#decoder.decode(bytes, { stream: true }).split("\n");
    this.#keep(lines[0]);
    for (const next of lines.slice(1)) {
      const line = this.#pieces.join("");
      [this.#pieces, this.#length] = [[], 0];
      this.#keep(next);
      if (line === "") {
        if (this.#event.data !== null || this.#event.id !== undefined) found.push(this.#event);
        this.#event = { data: null };
      } else {
        this.#line(line);
      }
    }
    return found;
  }

  #keep(piece) {
    this.#length += piece.length;
    if (this.#length > LINE_MAX) throw new Unreachable("a record is too large for this page");
    this.#pieces.push(piece);
  }

  #line(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "id") this.#event.id = value;
    else if (name === "event") this.#event.event = value;
    else if (name === "data") this.#event.data = this.#event.data === null ? value : `${this.#event.data}\n${value}`;
  }
}
