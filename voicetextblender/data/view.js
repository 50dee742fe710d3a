"use strict";
const talks = [...document.querySelectorAll(".talk")];
const form = document.getElementById("filters");
const { search, task, language, voice, failed } = form.elements;
const words = new Map(talks.map((talk) => [talk,
  [...talk.querySelectorAll("header, .turns")].map((e) => e.textContent).join(" ").toLowerCase()]));

function fits(talk, terms) {
  const faults = talk.dataset.failed.split("|").filter(Boolean);
  return [task, language, voice].every((s) => !s.value || talk.dataset[s.name] === s.value)
    && (!failed.value || (failed.value === "none" ? !faults.length
      : failed.value === "any" ? faults.length > 0 : faults.includes(failed.value)))
    && terms.every((term) => words.get(talk).includes(term));
}

function filter() {
  const terms = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const talk of talks) talk.hidden = !fits(talk, terms);
  const shown = talks.filter((talk) => !talk.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${talks.length} shown`;
}

function move(step) {
  const shown = talks.filter((talk) => !talk.hidden);
  const here = shown.indexOf(document.activeElement.closest(".talk"));
  const next = here < 0 ? shown[0] : shown[here + step];
  if (next) { next.focus({ preventScroll: true }); next.scrollIntoView({ block: "start" }); }
}

function play() {
  const talk = document.activeElement.closest(".talk") || talks.find((t) => !t.hidden);
  const player = talk && talk.querySelector("audio");
  if (player) player.paused ? player.play() : player.pause();
}

for (const player of document.querySelectorAll("audio")) {
  const wave = player.parentElement.querySelector(".wave");
  player.addEventListener("timeupdate", () => {
    const width = wave.viewBox.baseVal.width * player.currentTime / player.duration;
    wave.querySelector(".played").setAttribute("width", width);
  });
  player.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== player) other.pause();
  });
  wave.addEventListener("click", (event) => {
    const box = wave.getBoundingClientRect();
    player.currentTime = player.duration * (event.clientX - box.left) / box.width;
    player.play();
  });
}

document.addEventListener("keydown", (event) => {
  const isTyping = event.target.closest("input, select");
  if (event.key === "Escape" && isTyping) event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  const acts = { "/": () => search.focus(), j: () => move(1), k: () => move(-1), p: play };
  const act = acts[event.key];
  if (act) { event.preventDefault(); act(); }
});
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
form.hidden = false;
filter();
