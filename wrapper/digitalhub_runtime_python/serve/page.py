"""The page to try a function in a browser: one file, no scripts from elsewhere, made from /openapi.json."""

from __future__ import annotations

HTML = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Try the function</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
  body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
  h1 { font-size: 1.4rem; margin-bottom: 0 }
  label { display: block; margin-top: .8rem; font-weight: 600 }
  label small { font-weight: 400; opacity: .7 }
  input, textarea, select { width: 100%; box-sizing: border-box; font: inherit; padding: .35rem }
  textarea, pre { font-family: ui-monospace, monospace; font-size: .9rem }
  pre { padding: .8rem; border: 1px solid #8885; overflow: auto; white-space: pre-wrap }
  button { margin-top: 1rem; padding: .4rem 1.2rem; font: inherit }
  details { margin-top: 1rem }
  #status.bad { color: #c22 }
</style>
<h1 id="title">…</h1>
<p id="text"></p>
<form id="form">
  <div id="fields"></div>
  <details id="raw"><summary>Method, path, content type and body</summary>
    <label>Method <select id="method">
      <option>POST<option>GET<option>PUT<option>PATCH<option>DELETE</select></label>
    <label>Path <input id="path" value="/"></label>
    <label>Content type <input id="type" value="application/json"></label>
    <label>Body <textarea id="body" rows="6"></textarea></label>
  </details>
  <button>Send</button>
</form>
<p id="status"></p>
<pre id="answer" hidden></pre>
<p><small><a href="openapi.json">openapi.json</a> · <a href="metrics">metrics</a> ·
  <a href="ready">ready</a></small></p>
<script>
const $ = id => document.getElementById(id);
const inputs = {};
function resolve(schema, all) {
  const name = (schema.$ref || "").split("/").pop();
  return name ? all[name] || {} : schema;
}
function field(name, schema, required) {
  const label = document.createElement("label");
  const kind = schema.type || (schema.anyOf || []).map(s => s.type).join(" or ");
  const note = document.createElement("small");
  note.textContent = " " + [kind, required ? "" : "optional", schema.description || ""]
    .filter(Boolean).join(" · ");
  const big = ["object", "array"].includes(schema.type);
  const input = document.createElement(big ? "textarea" : "input");
  if ("default" in schema) input.placeholder = JSON.stringify(schema.default);
  inputs[name] = { input, text: schema.type === "string" };
  label.append(name, note, input);
  $("fields").append(label);
}
function compose() {
  const body = {};
  for (const [name, { input, text }] of Object.entries(inputs)) {
    if (input.value === "") continue;
    if (text) { body[name] = input.value; continue; }
    try { body[name] = JSON.parse(input.value); } catch { body[name] = input.value; }
  }
  $("body").value = JSON.stringify(body, null, 1);
}
async function start() {
  const doc = await (await fetch("openapi.json")).json();
  if (!doc.paths) { $("title").textContent = doc.detail || "The function is not ready."; return; }
  const post = doc.paths["/"].post;
  $("title").textContent = doc.info.title;
  $("text").textContent = [post.summary === doc.info.title ? "" : post.summary,
    post.description || ""].filter(Boolean).join(" — ");
  const schema = post.requestBody.content["application/json"].schema;
  const fields = Object.entries(schema.properties || {});
  for (const [name, s] of fields)
    field(name, resolve(s, doc.components.schemas), (schema.required || []).includes(name));
  if (!fields.length) $("raw").open = true;
  $("fields").addEventListener("input", compose);
}
$("form").addEventListener("submit", async submit => {
  submit.preventDefault();
  const method = $("method").value;
  const body = method === "GET" ? "" : $("body").value || (Object.keys(inputs).length ? "{}" : "");
  const began = performance.now();
  $("status").textContent = "…";
  const answer = await (await fetch("try", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ method, path: $("path").value, body,
      headers: body ? { "content-type": $("type").value } : {} }),
  })).json();
  const failed = answer.headers === undefined;
  $("status").className = failed || answer.status >= 400 ? "bad" : "";
  $("status").textContent = failed ? answer.detail
    : `${answer.status} ${answer.reason} · ${(performance.now() - began).toFixed(0)} ms`;
  let text = answer.body || "";
  try { text = JSON.stringify(JSON.parse(text), null, 2); } catch {}
  $("answer").hidden = failed;
  $("answer").textContent = text;
});
start();
</script>
</html>
"""
