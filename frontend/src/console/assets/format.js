// Numbers and times for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function count(number) {
  return number === null || number === undefined ? "–" : whole.format(number);
}

export function counted(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  let [value, unit] = [number, 0];
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? whole.format(value) : short.format(value)} ${UNITS[unit]}`;
}

export function rate(number, unit) {
  if (number === null || number === undefined || !Number.isFinite(number)) return "–";
  return unit === "bytes" ? `${bytes(Math.round(number))}/s` : `${short.format(number)}/s`;
}

export function money(amount, currency) {
  if (amount === null || amount === undefined) return "–";
  try {
    const digits = Math.abs(amount) < 1 ? 6 : 2;
    return new Intl.NumberFormat("en", { style: "currency", currency: currency ?? "USD", maximumFractionDigits: digits }).format(amount);
  } catch {
    return `${amount} ${currency}`;
  }
}

/** A moment, in the time of whoever looks, to the millisecond. */
export function time(millis) {
  if (millis === null || millis === undefined) return "–";
  const date = new Date(millis);
  if (Number.isNaN(date.getTime())) return `${millis} ms`;
  const two = (number) => String(number).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  return `${day} ${clock}.${String(date.getMilliseconds()).padStart(3, "0")}`;
}

export function duration(millis) {
  if (millis === null || millis === undefined) return "–";
  const parts = [
    [86_400_000, "d"],
    [3_600_000, "h"],
    [60_000, "min"],
    [1_000, "s"],
  ];
  for (const [unit, name] of parts) {
    if (Math.abs(millis) >= unit) return `${short.format(millis / unit)} ${name}`;
  }
  return `${whole.format(millis)} ms`;
}

/** Partitions as ranges: `0–3, 7`. */
export function ranges(numbers) {
  const parts = [];
  for (const number of numbers) {
    const last = parts.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? `${from}` : `${from}–${to}`)).join(", ");
}

/** What changed in a second between two readings, by key. */
export class Rates {
  #last = new Map();

  of(key, value, at) {
    const last = this.#last.get(key);
    if (!last || at - last.at >= 1_000) {
      const perSecond = last ? ((value - last.value) * 1_000) / (at - last.at) : null;
      this.#last.set(key, { value, at, perSecond });
      return perSecond;
    }
    return last.perSecond;
  }
}
