"use strict";
// Looks at one member at a time, and picks one under limits by the rules of `SearchResult.best`.
const study = JSON.parse(document.getElementById("study").textContent);
const byId = (id) => document.getElementById(id);
const members = new Map(study.members.map((member) => [member.id, member]));
const limits = new Map(); // name of a slider -> the limit that it stands at

const value = (member, name) => (name === "accuracy" ? member.accuracy : member.costs[name]);
const shown = (name, number) => {
  const slider = study.sliders.find((one) => one.name === name);
  if (name === "accuracy") return (100 * number).toFixed(2) + " %";
  const scaled = slider.scale * number;
  return Math.abs(scaled) < 1000 ? scaled.toPrecision(4) : scaled.toFixed(0);
};

function pick() {
  const within = study.members.filter((member) => {
    if (limits.size === 0) return member.kind === "front";
    return [...limits].every(([name, limit]) =>
      name === "accuracy" ? member.accuracy >= limit : member.costs[name] <= limit);
  });
  const cost = study.costs[0];
  const keys = (member) => {
    const own = [-member.accuracy, cost ? member.costs[cost] : 0];
    return limits.has("accuracy") ? own.reverse() : own;
  };
  const compare = (a, b) => {
    const [x, y] = [keys(a), keys(b)];
    return x[0] - y[0] || x[1] - y[1] || (a.id < b.id ? -1 : 1);
  };
  return within.sort(compare)[0];
}

function commands(member) {
  const call = [...limits].map(([name, limit]) => name + "=" + limit).join(", ");
  const lines = ["autocompress export " + study.shell + " " + member.id + " --out " + member.id, "",
    "import autocompress as ac", "result = ac.open(" + JSON.stringify(study.study) + ")"];
  const picked = pick();
  if (picked && picked.id === member.id) lines.push("member = result.best(" + call + ")");
  else lines.push("member = {m.id: m for m in result.members}[" + JSON.stringify(member.id) + "]");
  return [...lines, "member.path, member.packed_path"].join("\n");
}

function facts(member) {
  const words = { front: "on the front", dominated: "dominated", infeasible: "misses a constraint of the search" };
  const found = [["what was done", member.done], ["standing", words[member.kind]]];
  const accuracy = [shown("accuracy", member.accuracy) + " on val"];
  if (member.test !== null) accuracy.push(shown("accuracy", member.test) + " on test");
  if ("accuracy" in member.predicted) accuracy.push(shown("accuracy", member.predicted.accuracy) + " predicted");
  found.push(["accuracy", accuracy.join(", ")]);
  for (const cost of study.costs) {
    const both = [shown(cost, member.costs[cost])];
    if (cost in member.predicted) both.push(shown(cost, member.predicted[cost]) + " predicted");
    found.push([study.sliders.find((slider) => slider.name === cost).title, both.join(", ")]);
  }
  found.push(["distillation", member.distillation]);
  return found;
}

function show(member) {
  document.body.dataset.member = member.id;
  for (const id of ["picked-id", "layers-id"]) if (byId(id)) byId(id).textContent = member.id;
  byId("picked").replaceChildren(...facts(member).flatMap(([name, text]) => {
    const [term, description] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, description.textContent] = [name, text];
    return [term, description];
  }));
  byId("commands").textContent = commands(member);
  for (const row of document.querySelectorAll("tr[data-member]"))
    row.classList.toggle("chosen", row.dataset.member === member.id);
  for (const { name, scale } of study.sliders.slice(1)) {
    const plot = document.querySelector(`[data-cost="${name}"] .js-plotly-plot`);
    const chosen = { x: [[scale * member.costs[name]]], y: [[100 * member.accuracy]] };
    Plotly.restyle(plot, chosen, [plot.data.length - 1]);
  }
  if (byId("layers")) Plotly.restyle("layers", { y: [member.kept, member.weights, member.activations] });
}

function repick() {
  const picked = pick();
  document.body.dataset.pick = picked ? picked.id : "";
  const nearest = limits.size === 0 ? study.members[0] : undefined; // where the front is empty
  byId("rule").textContent = !picked ? (nearest ? "No member meets the constraints; this one comes nearest." :
    "No member is within these limits.") :
    limits.size === 0 ? "No limit: the most accurate member of the front." :
    limits.has("accuracy") ? "The cheapest member that is accurate enough and within the limits." :
    "The most accurate member within the limits.";
  if (picked || nearest) show(picked || nearest);
}

function addSlider({ name, title, scale, values }) {
  const [label, output, input] = ["label", "output", "input"].map((kind) => document.createElement(kind));
  const sign = name === "accuracy" ? "at least " : "at most ";
  Object.assign(input, { type: "range", min: 0, max: values.length, step: 1, id: "limit-" + name });
  input.value = values.length; // beyond the loosest value: no limit
  const update = () => {
    const limit = values[input.value];
    if (limit === undefined) limits.delete(name); else limits.set(name, limit);
    output.textContent = limit === undefined ? "no limit" : sign + shown(name, limit);
  };
  input.addEventListener("input", () => { update(); repick(); });
  update();
  label.append(title, output, input);
  byId("sliders").append(label);
}

function makeRoom(plot) { // a legend of many rows must not squeeze the plot
  const rows = plot.querySelector(".legend")?.getBBox().height ?? 0;
  if (rows <= 90) return;
  plot.parentElement.style.height = plot.parentElement.offsetHeight + rows - 90 + "px";
  Plotly.Plots.resize(plot);
}

function fit(plot) { // a scroll bar may have come since it was drawn
  const same = Math.abs(plot._fullLayout.width - plot.clientWidth) < 1;
  return same ? Promise.resolve() : Plotly.Plots.resize(plot);
}

function keepShape(plot) { // paper is narrower than a window; the style sheet scales plots to it
  const { width, height } = plot._fullLayout;
  plot.style.setProperty("--shape", width + " / " + height);
  for (const image of plot.querySelectorAll(".main-svg"))
    image.setAttribute("viewBox", `0 0 ${width} ${height}`);
}

addEventListener("load", () => {
  const plots = [...document.querySelectorAll(".js-plotly-plot")];
  for (const plot of plots) {
    plot.on("plotly_afterplot", () => keepShape(plot));
    keepShape(plot);
    fit(plot).then(() => makeRoom(plot));
  }
  if (study.members.length === 0) return;
  study.sliders.forEach(addSlider);
  repick();
  for (const plot of plots) plot.on("plotly_click", (event) => {
    const member = members.get(event.points[0].customdata);
    if (member) show(member);
  });
  for (const row of document.querySelectorAll("tr[data-member]")) {
    const choose = () => show(members.get(row.dataset.member));
    row.addEventListener("click", choose);
    row.addEventListener("keydown", (event) => { if (event.key === "Enter") choose(); });
  }
});
