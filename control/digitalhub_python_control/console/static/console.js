// What lives: when the server says that something changed, the page is asked for again, and the parts marked
// data-live are taken from it. Every page reads and works without this.
"use strict";
document.documentElement.classList.add("script");
const events = document.body.dataset.events;
const state = document.getElementById("state");
let asking = false, again = false;

function taken(fresh) {
  for (const part of document.querySelectorAll("[data-live]")) {
    const other = fresh.getElementById(part.id);
    if (!other || part.innerHTML === other.innerHTML) continue;
    const ticked = new Set([...part.querySelectorAll("input:checked")].map((one) => one.id));
    const opened = [...part.querySelectorAll("details")].map((one) => one.open);
    const focused = part.contains(document.activeElement) ? document.activeElement.id : "";
    const top = part.scrollTop;
    part.replaceChildren(...document.adoptNode(other).childNodes);
    part.hidden = other.hidden;
    part.querySelectorAll("input[type=checkbox]").forEach((one) => { one.checked = ticked.has(one.id); });
    part.querySelectorAll("details").forEach((one, at) => { if (at in opened) one.open = opened[at]; });
    part.scrollTop = top;
    if (focused) document.getElementById(focused)?.focus();
    if (part.id === "log") { followed(); found(); }
  }
  document.title = fresh.title;
}

async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    do {
      again = false;
      const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
      if (!answer.ok || answer.redirected) { location.reload(); return; }
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      taken(fresh);
      if (!fresh.body.dataset.events) { source?.close(); state.textContent = "Ended."; }
    } while (again);
  } catch { state.textContent = "The control plane does not answer; what is shown may be old."; }
  asking = false;
}

let source;
function listen() {
  source = new EventSource(events);
  source.onmessage = () => { state.textContent = "Kept up to date."; refresh(); };
  source.onerror = () => { state.textContent = "The control plane does not answer; trying again."; };
}
if (events) {
  listen();
  // A page that nobody sees asks for nothing.
  document.addEventListener("visibilitychange", () => { if (document.hidden) source.close(); else listen(); });
}

const log = document.getElementById("log"), follow = document.getElementById("follow"), find = document.getElementById("find");
function followed() { if (log && follow.checked) log.scrollTop = log.scrollHeight; }
function found() {
  if (!find || !globalThis.Highlight) return;
  CSS.highlights.delete("found");
  const wanted = find.value.toLowerCase(), told = document.getElementById("found");
  if (!wanted) { told.textContent = ""; return; }
  const ranges = [], walker = document.createTreeWalker(log, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.data.toLowerCase();
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) {
      const range = new Range();
      range.setStart(node, at); range.setEnd(node, Math.min(at + wanted.length, node.length));
      ranges.push(range);
    }
  }
  CSS.highlights.set("found", new Highlight(...ranges));
  told.textContent = `${ranges.length} found`;
  ranges.at(-1)?.startContainer.parentElement?.scrollIntoView({ block: "nearest" });
}
if (log) { followed(); find.addEventListener("input", found); }
