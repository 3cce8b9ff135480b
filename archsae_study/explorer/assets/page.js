// The explorer as a page of its own: shards are scripts, since a page opened from a file may not fetch.
(() => {
  "use strict";
  const archsae = globalThis.archsae;
  const waiting = new Map();

  /** Called by a shard with its content. */
  archsae.receive = (name, content) => {
    if (name === "index") archsae.index = content;
    else waiting.get(name)?.(content);
  };

  const load = (kind, key, shard) => new Promise((resolve, reject) => {
    const name = `${kind}/${key}/${shard}`;
    const script = document.createElement("script");
    waiting.set(name, (content) => { waiting.delete(name); script.remove(); resolve(content); });
    script.src = `data/${name}.js`;
    script.onerror = () => { waiting.delete(name); script.remove(); reject(new Error(`data/${name}.js is missing`)); };
    document.head.append(script);
  });

  document.addEventListener("DOMContentLoaded", () => {
    archsae.mount(document.getElementById("explorer"), { index: archsae.index, load });
  });
})();
