// Adds to the pages: times in the reader's zone, and the live tail. The pages work without it.
"use strict";

const zone = new Intl.DateTimeFormat(undefined, {
  year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit",
  second: "2-digit", timeZoneName: "short",
});

function addZone(root) {
  for (const time of root.querySelectorAll("time:not([title])")) {
    time.title = zone.format(new Date(time.dateTime));
  }
}

addZone(document);

const tail = document.getElementById("tail");
if (tail) {
  const LONGEST = 50;
  const button = document.getElementById("live");
  const away = document.getElementById("away");
  const more = document.getElementById("more");
  let source = null;
  let after = tail.dataset.after;

  const show = (message) => {
    away.hidden = true;
    after = message.lastEventId || after;
    const made = document.createElement("template");
    made.innerHTML = JSON.parse(message.data); // the server has escaped every value
    addZone(made.content);
    tail.querySelector(".none")?.remove();
    tail.prepend(made.content);
    while (tail.children.length > LONGEST) tail.lastElementChild.remove();
  };

  const open = () => {
    if (source || document.hidden || button.getAttribute("aria-pressed") !== "true") return;
    source = new EventSource(`/live?after=${encodeURIComponent(after)}`);
    source.onmessage = show;
    source.addEventListener("more", () => { more.hidden = false; });
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
