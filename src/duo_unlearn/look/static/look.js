// Keys for what the server has rendered: an element with data-key is clicked, or focused where it is a field.
"use strict";

const typing = (target) => target.closest("input:not([type=checkbox]):not([type=radio]):not([type=range]), textarea, select");
const keyed = () => [...document.querySelectorAll("[data-key]")].filter((one) => !one.disabled && one.offsetParent !== null);

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  if (event.key === "Escape" && typing(event.target)) return event.target.blur();
  if (typing(event.target) || document.querySelector("dialog[open]")) return;
  if (event.target.matches("input[type=range]") && event.key.startsWith("Arrow")) return;
  const found = keyed().find((one) => one.dataset.key === event.key);
  if (!found) return;
  event.preventDefault();
  if (event.repeat && found.type === "submit") return; // a key that is held down drops or labels once
  if (found.matches("input:not([type=checkbox]), textarea")) { found.focus(); found.select(); } else found.click();
});

document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (!opener) return;
  const dialog = document.getElementById(opener.dataset.opens);
  const list = dialog.querySelector("dl");
  if (list) {
    const known = keyed().filter((one) => one.dataset.says), general = (one) => Boolean(one.closest(".bar"));
    list.replaceChildren(...known.sort((a, b) => general(a) - general(b)).flatMap((one) => {
      const key = document.createElement("dt"), says = document.createElement("dd"), cap = document.createElement("kbd");
      cap.textContent = { ArrowRight: "→", ArrowLeft: "←", ArrowUp: "↑", " ": "space" }[one.dataset.key] || one.dataset.key;
      key.append(cap);
      says.textContent = one.dataset.says;
      return [key, says];
    }));
  }
  dialog.showModal();
});

// What is asked for once holds for this tab: whether pictures are shown, and the last reason of a drop.
const reveal = document.getElementById("reveal");
if (reveal) {
  const apply = () => document.body.classList.toggle("revealed", reveal.checked);
  reveal.checked = sessionStorage.getItem("reveal") === "yes";
  reveal.addEventListener("change", () => { sessionStorage.setItem("reveal", reveal.checked ? "yes" : "no"); apply(); });
  apply();
}
for (const field of document.querySelectorAll("input[data-keeps]")) {
  if (!field.value) field.value = sessionStorage.getItem(field.dataset.keeps) || "";
  field.form.addEventListener("submit", () => sessionStorage.setItem(field.dataset.keeps, field.value));
}

// One press, one form: a second submit before the next page is there is not sent.
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) return event.preventDefault();
  if (event.target.method === "post") event.target.dataset.sent = "yes";
});
window.addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((one) => delete one.dataset.sent));

// Filters apply at once; the button remains for those without scripts.
for (const field of document.querySelectorAll("form.filters[method=get] select")) field.addEventListener("change", () => field.form.requestSubmit());

// A picture that cannot be shown says so in its place.
const mark = (picture) => picture.closest(".picture")?.classList.add("lost");
for (const picture of document.querySelectorAll(".picture img")) {
  if (picture.complete && !picture.naturalWidth && picture.loading !== "lazy") mark(picture);
  picture.addEventListener("error", () => mark(picture));
}

// Parts that change while a page is open: the server renders them again, and tells when there is nothing new.
for (const part of document.querySelectorAll("[data-refresh]")) {
  const again = async () => {
    if (!document.hidden) try {
      const answer = await fetch(`${part.dataset.refresh}${part.dataset.refresh.includes("?") ? "&" : "?"}mark=${encodeURIComponent(part.dataset.mark || "")}`);
      if (answer.status === 200) {
        part.innerHTML = await answer.text(); // escaped by the server, and no script of it would run
        part.dataset.mark = answer.headers.get("x-mark") || "";
      }
    } catch { /* the server is gone for the moment */ }
    setTimeout(again, Number(part.dataset.every || 2000));
  };
  setTimeout(again, Number(part.dataset.every || 2000));
}

// A comparison: a slider over both pictures, and while space or the picture is held the original alone.
const duels = () => document.querySelectorAll("[data-duel]:not(.over)").forEach((one) => one.classList.add("over"));
new MutationObserver(duels).observe(document.getElementById("main"), { childList: true, subtree: true });
duels();
document.addEventListener("input", (event) => {
  if (event.target.matches("[data-slides]")) event.target.closest("[data-duel]").style.setProperty("--cut", `${event.target.value}%`);
});
const blink = (on) => document.querySelector("[data-duel]")?.classList.toggle("blink", on);
const held = (event) => event.key === " " && document.querySelector("[data-duel]") && !typing(event.target) && !event.target.closest("button, a, summary");
document.addEventListener("keydown", (event) => { if (held(event)) { event.preventDefault(); blink(true); } });
document.addEventListener("keyup", (event) => { if (event.key === " ") blink(false); });
document.addEventListener("pointerdown", (event) => { if (event.target.closest("[data-duel] .both")) blink(true); });
for (const name of ["pointerup", "pointercancel", "blur"]) window.addEventListener(name, () => blink(false));
