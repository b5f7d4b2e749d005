// What the page does beyond links and forms. The server renders everything; this script only brings
// newer renderings into the page that is open, and keeps focus, scrolling and selection where they are.
//
// - [data-live=URL]      server-sent events of HTML, each a new rendering of the element's inside
// - form[data-morph]     is sent without leaving the page where the answer is the same page again
// - [data-again]         sends its form when it changes
// - [data-copy=ID]       copies the text of another element
// - [data-announce=ID]   tells a screen reader a sentence now and then, not at every change
// - [data-spark=ID]      draws how a number has been while the page is open
"use strict";

const ANNOUNCE_EVERY_MS = 10000;
const SPARK_POINTS = 120;
const PATIENCE_MS = 2500;

// Parsing runs no script, and the server has escaped whatever came from a record.
const parse = (html) => new DOMParser().parseFromString(html, "text/html");

/** Make `old` equal to `fresh`, touching only what differs. */
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(old.tagName === "DETAILS" && name === "open")) {
      old.removeAttribute(name);
    }
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  morphInside(old, fresh);
  if (old.tagName === "INPUT" || old.tagName === "TEXTAREA") {
    if (old.type === "checkbox") old.checked = fresh.defaultChecked;
    else if (old.value !== fresh.defaultValue) old.value = fresh.defaultValue;
  } else if (old.tagName === "SELECT" && old.value !== fresh.value) {
    old.value = fresh.value;
  }
}

const likes = (one, other) =>
  one.nodeType === other.nodeType && one.nodeName === other.nodeName && (one.id || "") === (other.id || "");

function morphInside(old, fresh) {
  const wanted = [...fresh.childNodes];
  wanted.forEach((next, at) => {
    const here = old.childNodes[at];
    if (!here) {
      old.append(document.importNode(next, true));
    } else if (!likes(here, next)) {
      // What comes later under the same id moves here: a row that went up keeps its focus.
      const later = next.id && [...old.children].find((child) => child.id === next.id);
      if (later) {
        old.insertBefore(later, here);
        morph(later, next);
      } else {
        old.insertBefore(document.importNode(next, true), here);
        if (at + 1 < old.childNodes.length && !wanted.slice(at + 1).some((n) => likes(here, n))) here.remove();
      }
    } else if (here.nodeType === Node.ELEMENT_NODE) {
      morph(here, next);
    } else if (here.nodeValue !== next.nodeValue) {
      here.nodeValue = next.nodeValue;
    }
  });
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
}

// Live parts ----------------------------------------------------------------------------------

/** Say at the top of the page that what it shows is old, and why; nothing: it is not. */
function say(why) {
  const note = document.getElementById("stale");
  note.hidden = !why;
  note.firstElementChild.textContent = why;
}

/** Follow a live part while it can be seen: a browser has few connections for each server. */
function follow(part) {
  let source = null;
  let doubt = 0;
  const lost = () => {
    // A connection that is cut comes back within a second, if the server is there.
    doubt = 0;
    if (!source || source.readyState === EventSource.OPEN) return;
    const given = source.readyState === EventSource.CLOSED;
    say(
      given
        ? "This page does not change any more. Load it again to see what is there now."
        : "The server does not answer. What stands here is old; it goes on by itself when the server is back.",
    );
  };
  const trust = () => {
    clearTimeout(doubt);
    doubt = 0;
  };
  const open = () => {
    if (source || document.hidden || part.dataset.ended) return;
    source = new EventSource(part.dataset.live);
    source.addEventListener("open", () => {
      trust();
      say("");
    });
    source.addEventListener("error", () => {
      doubt ||= setTimeout(lost, PATIENCE_MS);
    });
    source.addEventListener("part", (event) => {
      morphInside(part, parse(event.data).body);
      part.dispatchEvent(new CustomEvent("fresh"));
    });
    source.addEventListener("end", end);
    source.addEventListener("gone", () => {
      end();
      say("What this page shows is not there any more.");
    });
  };
  const close = () => {
    trust();
    if (source) source.close();
    source = null;
  };
  const end = () => {
    part.dataset.ended = "yes";
    close();
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
}

function announce(speaker, live) {
  let last = 0;
  live.addEventListener("fresh", () => {
    const sentence = document.getElementById(speaker.dataset.announce);
    const now = Date.now();
    if (!sentence || now - last < ANNOUNCE_EVERY_MS || speaker.textContent === sentence.textContent) return;
    last = now;
    speaker.textContent = sentence.textContent;
  });
}

function spark(box, live) {
  const seen = [];
  const draw = () => {
    const number = document.getElementById(box.dataset.spark);
    if (!number) return;
    seen.push(Number(number.dataset.value) || 0);
    if (seen.length > SPARK_POINTS) seen.shift();
    if (seen.length < 3) return;
    const most = Math.max(...seen, 1e-9);
    const step = SPARK_POINTS / (seen.length - 1);
    const points = seen.map((value, at) => `${(at * step).toFixed(2)},${(38 - (36 * value) / most).toFixed(2)}`);
    box.querySelector("polyline").setAttribute("points", points.join(" "));
    box.querySelector("polygon").setAttribute("points", `0,40 ${points.join(" ")} ${SPARK_POINTS},40`);
    const range = box.querySelector("[data-spark-range]");
    range.textContent = `up to ${most.toLocaleString("en", { maximumFractionDigits: most < 10 ? 1 : 0 })} samples/s`;
    box.hidden = false;
  };
  live.addEventListener("fresh", draw);
}

// Forms ---------------------------------------------------------------------------------------

async function send(form, button) {
  const data = new FormData(form);
  data.set("action", button ? button.value : "show");
  form.setAttribute("aria-busy", "true");
  try {
    // Not form.action: that is the form's buttons, which are called so.
    const answer = await fetch(form.getAttribute("action"), { method: "POST", body: new URLSearchParams(data) });
    if (answer.redirected) {
      window.location.assign(answer.url);
      return;
    }
    const fresh = parse(await answer.text());
    const focus = document.activeElement && document.activeElement.id;
    morph(document.getElementById("main"), fresh.getElementById("main"));
    ready(document);
    const problem = document.getElementById("problem");
    const tried = button && button.value === "try" && document.getElementById("tried");
    const wanted = problem || tried || (focus && document.getElementById(focus));
    if (wanted) wanted.focus({ preventScroll: wanted !== problem && wanted !== tried });
  } catch {
    form.removeAttribute("data-morph"); // the server cannot be reached: let the browser say so
    form.requestSubmit(button);
  } finally {
    form.removeAttribute("aria-busy");
  }
}

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (!form.matches("form[data-morph]")) return;
  event.preventDefault();
  if (form.getAttribute("aria-busy") !== "true") send(form, event.submitter);
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-again]")) event.target.form.requestSubmit();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const source = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    // Browsers give the clipboard to secure pages only: select it for the reader instead.
    window.getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
});

function ready(root) {
  for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false;
}

ready(document);
for (const live of document.querySelectorAll("[data-live]")) {
  for (const speaker of document.querySelectorAll("[data-announce]")) announce(speaker, live);
  for (const box of document.querySelectorAll("[data-spark]")) spark(box, live);
  follow(live);
}
