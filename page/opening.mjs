// How every task's page begins: frame, a word where the browser lacks something, the networks.
import { element, fault, frame, tell } from "./dom.mjs";
import { lacking, startNetworks } from "./network.mjs";

/** @param {string} title @param {[string, any]} about keys of texts
 * @param {() => {parts: Node[], layout?: string, begin: () => any}} build what is below the head */
export async function opened(title, about, build) {
  frame(title, about);
  const missing = lacking();
  const main = document.getElementById("main");
  if (missing.length) {
    main.replaceChildren();
    fault("lacking", { names: missing.join(", ") });
    return;
  }
  tell("loading");
  try {
    const { parts, layout = "two", begin } = build();
    main.replaceChildren(element("div", { class: layout }, ...parts));
    await startNetworks();
    await begin();
  } catch (error) {
    fault("failed", { why: error.message });
  }
}
