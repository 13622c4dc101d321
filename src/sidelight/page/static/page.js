// Adds to the pages: times in the reader's zone, and the live tail. The pages work without it.
"use strict";

const HERE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const clocks = Object.fromEntries(["UTC", HERE].map((timeZone) => [timeZone,
  new Intl.DateTimeFormat("en", {
    timeZone, timeZoneName: "short", hourCycle: "h23", year: "numeric", month: "2-digit",
    day: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit",
    fractionalSecondDigits: 3,
  })]));
const chosen = document.getElementById("zone");

function inZone(time, name) {
  const parts = clocks[name].formatToParts(new Date(time.dateTime));
  const part = Object.fromEntries(parts.map(({ type, value }) => [type, value]));
  return [
    `${part.year}-${part.month}-${part.day} `,
    `${part.hour}:${part.minute}:${part.second}.${part.fractionalSecond}`,
    ` ${part.timeZoneName}`,
  ];
}

function showTimes(root) {
  const isHere = chosen.getAttribute("aria-pressed") === "true";
  for (const time of root.querySelectorAll("time")) {
    const texts = inZone(time, isHere ? HERE : "UTC");
    time.childNodes.forEach((each, index) => { each.textContent = texts[index]; });
    time.title = inZone(time, isHere ? "UTC" : HERE).join("");
  }
}

function choose(isHere) {
  chosen.setAttribute("aria-pressed", String(isHere));
  document.getElementById("utc").hidden = isHere;
  showTimes(document);
}

chosen.textContent = `times in ${HERE}`; // "times are UTC" stands beside it until it is pressed
chosen.hidden = HERE === "UTC";
chosen.addEventListener("click", () => {
  const isHere = chosen.getAttribute("aria-pressed") !== "true";
  choose(isHere);
  document.cookie = `zone=${isHere ? "here" : "UTC"}; path=/; samesite=strict; max-age=31536000`;
});
choose(document.cookie.split("; ").includes("zone=here"));

const tail = document.getElementById("tail");
if (tail) {
  const button = document.getElementById("live");
  const away = document.getElementById("away");
  const more = document.getElementById("more");
  let source = null;
  let after = tail.dataset.after;
  let leftOut = 0;
  let atLeast = "";

  const show = (message) => {
    away.hidden = true;
    after = message.lastEventId || after;
    const made = document.createElement("template");
    made.innerHTML = JSON.parse(message.data); // the server has escaped every value
    showTimes(made.content);
    tail.querySelector(".none")?.remove();
    tail.prepend(made.content);
    while (tail.children.length > tail.dataset.longest) tail.lastElementChild.remove();
  };

  const tellMore = (message) => {
    const told = JSON.parse(message.data);
    leftOut += told.left_out;
    if (!told.is_exact) atLeast = "At least ";
    more.querySelector("b").textContent = `${atLeast}${leftOut.toLocaleString("en")}`;
    more.hidden = false;
  };

  const open = () => {
    if (source || document.hidden || button.getAttribute("aria-pressed") !== "true") return;
    source = new EventSource(`/live?after=${encodeURIComponent(after)}`);
    source.onmessage = show;
    source.addEventListener("more", tellMore);
    source.addEventListener("away", () => { away.hidden = false; });
  };

  const close = () => {
    source?.close();
    source = null;
  };

  button.hidden = false;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    button.textContent = on ? "● live" : "○ paused";
    if (on) open(); else close();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else open(); });
  open();
}
