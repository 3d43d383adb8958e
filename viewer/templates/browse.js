// Every page works without this. It brings sections that were not counted yet, moves thresholds live, copies SQL.
"use strict";

async function fetched(address, headers) {
  const answer = await fetch(address, { headers });
  return [answer.status, new DOMParser().parseFromString(await answer.text(), "text/html")];
}

async function fill(part) {
  for (;;) {
    const [status, page] = await fetched("/overview/" + part.dataset.part, { "X-Part": "1" });
    if (status === 202) continue; // the server has waited; it is still counting
    part.replaceChildren(...page.body.childNodes);
    delete part.dataset.part;
    return;
  }
}

async function fillAll() {
  for (const part of document.querySelectorAll("[data-part]")) await fill(part);
}

async function countOn(line) {
  while (line && "counting" in line.dataset) {
    await new Promise((wait) => setTimeout(wait, 700));
    const [, page] = await fetched(location.href, {});
    const fresh = page.querySelector(".found"), list = document.getElementById("list"), more = page.getElementById("list");
    if (!fresh || !more) return;
    const [now, then] = [list, more].map((part) => part.querySelectorAll("article, .pages a").length);
    if (now !== then || !("counting" in fresh.dataset)) list.replaceWith(more); // while nothing is new, the list stays
    line.replaceWith(fresh);
    line = fresh;
  }
}

function liveThresholds(form) {
  let timer = 0, latest = 0;
  const show = async () => {
    const mine = ++latest, address = "/thresholds?" + new URLSearchParams(new FormData(form));
    const outcome = document.getElementById("outcome");
    outcome.classList.add("busy");
    const [, page] = await fetched(address, {});
    if (mine !== latest) return;
    const fresh = page.getElementById("outcome") || page.querySelector("main");
    fresh.id = "outcome";
    outcome.replaceWith(fresh);
    history.replaceState(null, "", address);
  };
  form.addEventListener("input", (event) => {
    const slider = event.target, unlimited = slider.dataset.unlimited;
    const open = unlimited !== undefined && Number(slider.value) === Number(unlimited);
    slider.parentElement.querySelector("output").value = open ? "none" : slider.value;
    clearTimeout(timer);
    timer = setTimeout(show, 150);
  });
}

document.addEventListener("click", (event) => {
  if (!event.target.matches("button.copy")) return;
  const text = event.target.closest("details").querySelector("code").textContent;
  navigator.clipboard.writeText(text).then(() => { event.target.textContent = "Copied"; });
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, select, textarea")) return;
  event.preventDefault();
  document.getElementById("search").focus();
});

if (navigator.clipboard) for (const button of document.querySelectorAll("button.copy")) button.hidden = false;
for (const form of document.querySelectorAll("form.thresholds")) liveThresholds(form);
fillAll();
countOn(document.querySelector(".found"));
