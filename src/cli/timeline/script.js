(() => {
  const tip = document.getElementById("tip");
  const show = (event) => {
    const at = event.target.closest("[data-tip]");
    tip.hidden = !at;
    if (!at) return;
    tip.textContent = at.dataset.tip;
    const box = tip.getBoundingClientRect();
    const x = Math.min(event.clientX + 14, innerWidth - box.width - 8);
    const below = event.clientY + 18;
    const y = below + box.height > innerHeight ? event.clientY - box.height - 12 : below;
    tip.style.left = Math.max(8, x) + "px";
    tip.style.top = Math.max(8, y) + "px";
  };
  document.addEventListener("mousemove", show);
  document.addEventListener("mouseleave", () => { tip.hidden = true; });
  for (const key of document.querySelectorAll(".key")) {
    key.addEventListener("click", () => {
      const off = key.classList.toggle("off");
      for (const span of document.querySelectorAll("." + key.dataset.work)) {
        if (span !== key) span.style.visibility = off ? "hidden" : "";
      }
    });
  }
  const zoom = document.getElementById("zoom");
  zoom.addEventListener("input", () => {
    document.getElementById("wide").style.setProperty("--zoom", zoom.value);
  });
})();
