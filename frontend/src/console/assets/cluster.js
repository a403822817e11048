// Whether the cluster is well, and if not, why.

import { get } from "./api.js";
import { Table, facts, failure, h, repeat } from "./dom.js";
import { count, duration, time } from "./format.js";

const EVERY = 2_000;
// A follower is heard from several times a second.
const SILENT = 5_000;

export async function cluster({ main, signal }) {
  const problem = h("div");
  const health = h("div", null, h("p", { class: "waiting" }, "Loading…"));
  const nodes = new Table("Metadata nodes", nodeColumns(), (node) => node.node);
  const jobs = new Table("Maintenance", jobColumns(), (job) => job.job, "Nothing is known of maintenance.");
  const sizes = h("div");
  const below = h("div", { hidden: true }, sizes, h("h2", null, "Metadata nodes"), nodes.element, h("h2", null, "Maintenance"), jobs.element);
  main.append(problem, health, below);
  await repeat(EVERY, signal, async () => {
    const status = await get(["cluster"], null, signal);
    const maintenance = await get(["cluster", "maintenance"], null, signal).catch(() => ({ jobs: [] }));
    show(health, reasons(status.metadata));
    const { metadata } = status;
    sizes.replaceChildren(facts([
      ["Topics", count(metadata.topics)],
      ["Partitions", count(metadata.partitions)],
      ["Segments", count(metadata.segments)],
      ["Slices", count(metadata.slices)],
      ["Log time", time(metadata.log_time)],
      ["Cluster", h("span", { class: "mono" }, metadata.cluster ?? "not started")],
      ["Incarnation", metadata.incarnation ?? "–"],
      ["Object store", h("span", { class: "mono" }, status.object_store)],
      ["Frontend", status.frontend_version],
    ].map(([name, value]) => [name, value instanceof Node ? value : String(value)])));
    nodes.update(metadata.nodes.map((node) => ({ ...node, leads: node.node === metadata.leader })));
    jobs.update(maintenance.jobs.map((job) => ({ ...job, now: maintenance.log_time })));
    below.hidden = false;
  }, (error) => {
    health.querySelector(".waiting")?.remove();
    problem.replaceChildren(...(error ? [failure(error)] : []));
  });
}

/** What is wrong with the cluster; nothing if it is well. */
function reasons(metadata) {
  const voters = metadata.nodes.filter((node) => node.role === "voter");
  const found = [];
  if (metadata.cluster === null) found.push("The cluster has not been started yet.");
  else if (metadata.leader === null) found.push("There is no leader now: nothing can be written.");
  if (voters.length < metadata.voters_wanted) {
    found.push(`Only ${voters.length} of ${metadata.voters_wanted} voters have joined.`);
  }
  for (const node of metadata.nodes) {
    // A leader alone has no rounds in which it would hear from itself.
    if (node.node !== metadata.leader && node.last_heard_millis !== null && node.last_heard_millis > SILENT) {
      found.push(`Node ${node.node} at ${node.address} has not been heard from for ${duration(node.last_heard_millis)}.`);
    }
  }
  if (metadata.disk_full) found.push("The disk of the node that answers is nearly full: it proposes nothing.");
  return found;
}

function show(health, found) {
  const text = found.join("\n");
  if (health.dataset.shown === text && health.hasChildNodes()) return;
  health.dataset.shown = text;
  const list = h("ul", null, found.map((reason) => h("li", null, reason)));
  const well = h("p", { class: "health well" }, "✓ The cluster is well.");
  const ill = h("div", { class: "health ill" }, h("p", null, "⚠ The cluster is not well:"), list);
  health.replaceChildren(h("div", { role: "status" }, found.length === 0 ? well : ill));
}

function nodeColumns() {
  const heard = ({ leads, last_heard_millis: millis }) => {
    if (leads) return "leads";
    return millis === null || millis === undefined ? "–" : `${duration(millis)} ago`;
  };
  return [
    { title: "Node", head: true, mono: true, cell: (node) => String(node.node) },
    { title: "Address", mono: true, cell: (node) => node.address },
    { title: "Role", cell: (node) => (node.leads ? "leader" : node.role) },
    { title: "Heard from", cell: heard },
    { title: "Log on disk up to", number: true, cell: (node) => count(node.matched) },
  ];
}

function jobColumns() {
  const ago = (job, at) => (at === null || at === undefined ? "–" : `${duration(Math.max(0, job.now - at))} ago`);
  return [
    { title: "Job", head: true, cell: (job) => String(job.job).replaceAll("_", " ") },
    { title: "Last finished", cell: (job) => (job.last_success === null ? "never" : ago(job, job.last_success)) },
    { title: "Due", cell: (job) => (job.due_since === null ? "no" : `since ${ago(job, job.due_since).replace(" ago", "")}`) },
    { title: "To do", number: true, cell: (job) => count(job.backlog) },
    { title: "Done", number: true, cell: (job) => (job.progress_percent === null ? "–" : `${job.progress_percent} %`) },
    { title: "Worker", mono: true, cell: (job) => job.worker ?? "–" },
  ];
}
