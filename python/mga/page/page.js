"use strict";
// The page asks the server for everything; what it shows is made of text nodes only, so no name can become code.
const at = (id) => document.getElementById(id);
const pictures = new Map(); // id -> {name, size}, in the order in which they were added
let offer, visit, shown, left = false, tasks = [];

function say(text) { at("error").textContent = text; }

function element(kind, text, more = {}) {
  const made = Object.assign(document.createElement(kind), more);
  made.textContent = text;
  return made;
}

const address = (path, facts) => `${path}?${new URLSearchParams({ visit, ...facts })}`;

async function ask(path, facts = {}, options = {}) {
  let answer;
  try {
    answer = await fetch(address(path, facts), options);
  } catch {
    throw new Error("the page's program does not answer; is `mga ui` still running?");
  }
  if (answer.status === 204) return null;
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error);
  return told;
}

async function start() {
  visit = "";
  offer = await ask("visit", {}, { method: "POST" });
  visit = offer.visit;
  for (const model of offer.models) addModel(model);
  for (const format of offer.formats) at("format").append(element("option", format.name, { value: format.name }));
  at("own").hidden = !offer.paths;
  choose();
  ready();
}

function addModel(model) {
  const title = `${model.model} (${model.scale} times)`;
  const known = [...at("model").options].find((one) => one.value === model.model);
  if (!known) at("model").append(element("option", title, { value: model.model }));
}

const model = () => offer.models.find((one) => one.model === at("model").value);

function choose() {
  const chosen = model();
  at("purpose").textContent = chosen.purpose;
  const words = chosen.qualities.map((word) => element("option", word, { value: word }));
  at("quality").replaceChildren(element("option", "usual", { value: "" }), ...words);
  at("with-quality").hidden = !words.length;
  at("with-mask").hidden = !chosen.masked;
  sizes();
  formats();
}

function sizes() { at("size").hidden = !at("by").value; }

function formats() {
  const format = offer.formats.find((one) => one.name === at("format").value);
  at("with-file-quality").hidden = !(format && format.lossy);
}

function options() {
  const words = ["--model", at("model").value];
  if (at("quality").value) words.push("--quality", at("quality").value);
  if (at("by").value) words.push(`${at("by").value}=${at("size").value.trim()}`);
  if (at("format").value) words.push("--format", at("format").value);
  const quality = at("file-quality").value.trim();
  if (quality && !at("with-file-quality").hidden) words.push(`--quality=${quality}`);
  return words;
}

function ready() { at("go").disabled = !pictures.size; }

async function send(files) {
  say("");
  const failed = [];
  for (const file of files) {
    const line = element("li", `${file.name} ...`);
    at("pictures").append(line);
    try {
      if (file.size > offer.limits.bytes) {
        const most = offer.limits.bytes / 1e6;
        throw new Error(`${file.name} is larger than the ${most} MB that this page takes; \`mga upscale\` takes any file, or start \`mga ui\` with --max-megabytes`);
      }
      const sent = await ask("picture", { name: file.name }, { method: "POST", body: file });
      pictures.set(sent.id, sent);
      line.replaceChildren(element("span", `${sent.name} (${sent.size.join("x")})`));
      const out = element("button", "×", { type: "button", title: "leave out", ariaLabel: `leave out ${sent.name}` });
      out.onclick = () => { pictures.delete(sent.id); line.remove(); ready(); };
      line.append(out);
    } catch (problem) {
      line.remove();
      failed.push(problem.message);
    }
    ready();
  }
  say(failed.join("\n"));
}

async function work() {
  say("");
  const body = JSON.stringify({ pictures: [...pictures.keys()], options: options(), mask: at("mask").checked });
  await ask("tasks", {}, { method: "POST", body, headers: { "Content-Type": "application/json" } });
  pictures.clear();
  at("pictures").replaceChildren();
  ready();
  watch();
}

let watching = false, again = false; // again: something may have changed since the tasks were last asked for
async function watch() {
  again = true;
  if (watching) return;
  watching = true;
  try {
    while (again && !left) {
      again = false;
      tasks = (await ask("tasks")).tasks;
      list();
      again ||= tasks.some((task) => ["waiting", "working"].includes(task.state));
      if (again) await new Promise((done) => setTimeout(done, 300));
    }
  } catch (problem) {
    say(problem.message);
  } finally {
    watching = false;
  }
}

function list() {
  at("results").replaceChildren(...tasks.map(entry));
  const done = tasks.filter((task) => task.state === "done");
  const busy = tasks.some((task) => ["waiting", "working"].includes(task.state));
  at("zip").hidden = done.length < 2 || busy;
  at("zip").href = address("zip", { ids: tasks.map((task) => task.id).join(",") });
  if (done.length && (!shown || !done.some((task) => task.id === shown.id))) show(done[0]);
}

function entry(task) {
  const item = element("li", "");
  item.dataset.state = task.state;
  if (task.state === "done") {
    const link = element("a", task.file, { href: address("result", { id: task.id }), download: task.file });
    item.append(link, ` ${task.size.join("x")}, ${(task.bytes / 1e6).toFixed(2)} MB, ${task.how}, ${task.seconds.toFixed(1)} s`);
    const look = element("button", "show", { type: "button" });
    look.onclick = () => show(task);
    item.append(look, ...task.notes.flatMap((note) => [element("br", ""), element("small", note)]));
  } else if (task.state === "failed") {
    item.append(element("span", task.error, { className: "error" }));
  } else {
    item.textContent = `${task.name}: ${task.state}${task.seconds ? `, ${Math.round(task.seconds)} s` : ""}`;
  }
  return item;
}

function show(task) {
  shown = task;
  at("view").hidden = false;
  at("with-cells").hidden = !task.mask;
  at("cells").checked = false;
  at("before").src = address("shown", { id: task.picture });
  at("compare").style.setProperty("--wide", `${task.size[0]}px`);
  at("compare").style.aspectRatio = `${task.size[0]} / ${task.size[1]}`;
  after();
  at("facts").textContent = `${task.name} → ${task.size.join("x")}, ${task.how}, ${task.seconds.toFixed(1)} s `;
}

function after() {
  const cells = at("cells").checked && shown.mask;
  at("after").src = address(cells ? "mask" : "shown", { id: shown.id });
}

const failing = (act) => async (event) => {
  event?.preventDefault();
  try { await act(event); } catch (problem) { say(problem.message); }
};

at("files").onchange = failing(async () => { await send([...at("files").files]); at("files").value = ""; });
at("choices").onsubmit = failing(work);
at("model").onchange = choose;
at("by").onchange = sizes;
at("format").onchange = formats;
at("cells").onchange = after;
at("actual").onchange = () => at("compare").classList.toggle("actual", at("actual").checked);
at("slider").oninput = () => at("compare").style.setProperty("--at", `${at("slider").value}%`);
at("add").onclick = failing(async () => {
  say("");
  const found = await ask("model", { path: at("path").value.trim() });
  offer.models.push(found);
  addModel(found);
  at("model").value = found.model;
  choose();
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    at("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") failing(() => send([...event.dataTransfer.files]))();
  });
}
// Not sent where the browser keeps the page, to show it again as it was.
addEventListener("pagehide", (event) => {
  if (event.persisted) return;
  left = true;
  navigator.sendBeacon(address("leave", {}));
});
setInterval(() => { if (visit && !watching) ask("tasks").catch(() => {}); }, 60000);
failing(start)();
