// Asks for the live part of the page again and puts in what has changed, and nothing else: focus, scroll positions, ticks,
// open details and selected text stay as they are.
"use strict";
(() => {
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  if (!live) return;
  let tag = "";
  let failures = 0;

  const isSame = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName;

  function morph(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (old.nodeType !== Node.ELEMENT_NODE) {
      old.nodeValue = fresh.nodeValue;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (name !== "open" && name !== "checked" && !fresh.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of fresh.attributes) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    morphChildren(old, fresh);
  }

  // What tells two elements of the same kind apart: the run of a row, the heading of a section, the title of a chart.
  function key(node) {
    if (node.nodeType !== Node.ELEMENT_NODE) return "";
    const mark = node.querySelector(node.nodeName === "TR" ? "input, a" : "h2, figcaption");
    return mark ? mark.value || mark.textContent : "";
  }

  function morphChildren(old, fresh) {
    const next = [...fresh.childNodes];
    const wanted = new Set(next.map(key));
    let at = old.firstChild;
    for (const node of next) {
      const own = key(node);
      while (at && key(at) !== own && !wanted.has(key(at))) at = remove(at);
      if (at && isSame(at, node) && key(at) === own) {
        const after = at.nextSibling;
        morph(at, node);
        at = after;
      } else {
        const known = own && [...old.childNodes].find((child) => isSame(child, node) && key(child) === own);
        if (known) morph(known, node);
        old.insertBefore(known || node, at);
      }
    }
    while (at) at = remove(at);
  }

  function remove(node) {
    const after = node.nextSibling;
    node.remove();
    return after;
  }

  const isSelecting = () => {
    const selection = document.getSelection();
    return selection && !selection.isCollapsed && live.contains(selection.anchorNode);
  };

  let timer = 0;
  let isLooking = false;

  async function look() {
    if (isLooking) return;
    isLooking = true;
    clearTimeout(timer);
    if (!document.hidden && !isSelecting()) {
      try {
        const answer = await fetch(live.dataset.address, { headers: tag ? { "If-None-Match": tag } : {}, cache: "no-store" });
        if (answer.status === 200) {
          const page = new DOMParser().parseFromString(await answer.text(), "text/html");
          const fresh = page.body.firstElementChild;
          if (fresh) morph(live.firstElementChild, document.adoptNode(fresh));
          tag = answer.headers.get("ETag") || "";
        }
        failures = 0;
        const gone = answer.status === 404 ? "This is no longer there." : "";
        if (lost.textContent !== gone) lost.textContent = gone;
      } catch {
        failures += 1;
        if (failures === 2) lost.textContent = "The server does not answer. What is shown may be old; trying again.";
      }
    }
    const pause = Number(live.firstElementChild.dataset.every) || 10000;
    isLooking = false;
    timer = setTimeout(look, failures > 1 ? 10000 : pause);
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) look();
  });
  timer = setTimeout(look, Number(live.firstElementChild.dataset.every) || 10000);
})();
