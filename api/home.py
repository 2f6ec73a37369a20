"""The page at `/`: where things are."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Model reprogramming</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 3rem auto; padding: 0 1rem; color: #222 }
  table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .8rem .3rem 0 }
  th { border-bottom: 1px solid #999 } input { font: inherit; width: 22rem } code { background: #eee; padding: 0 .2rem }
  a { color: #0645ad } .note { color: #666 }
</style>
<h1>Model reprogramming</h1>
<p>Frozen models, new tasks, small adapters. <a href="/docs">Try the API</a> · <a href="/openapi.json">OpenAPI</a>
 · <a href="/readyz">Readiness</a> · <a href="/metrics">Metrics</a></p>
<form id="form"><label>API key <input id="key" type="password" placeholder="mr_..." autocomplete="off"></label>
 <button>List jobs</button></form>
<p id="note" class="note">The key stays on this page.</p>
<table hidden><thead><tr><th>Job<th>Kind<th>Status<th>Phase<th>Progress<th>Created</thead><tbody></tbody></table>
<script>
const find = (selector) => document.querySelector(selector);
async function list() {
  const headers = { Authorization: `Bearer ${find("#key").value}` };
  const answer = await fetch("/v1/jobs?limit=50", { headers });
  const body = await answer.json();
  find("table").hidden = !answer.ok;
  find("#note").textContent = answer.ok ? (body.data.length ? "" : "No jobs yet.") : body.detail;
  const rows = (body.data || []).map((job) => {
    const row = document.createElement("tr");
    const percent = job.progress ? `${job.progress.percent} %` : "";
    for (const text of [job.id, job.kind, job.status, job.phase || "", percent, job.created_at]) {
      row.append(Object.assign(document.createElement("td"), { textContent: text }));
    }
    return row;
  });
  find("tbody").replaceChildren(...rows);
}
let timer;
find("#form").addEventListener("submit", (event) => {
  event.preventDefault();
  clearInterval(timer);
  timer = setInterval(list, 3000);
  list();
});
</script>
</html>
"""


@router.get("/", response_class=HTMLResponse)
def home() -> HTMLResponse:
    """Links, and the jobs of a key that is typed in."""
    return HTMLResponse(_PAGE)
