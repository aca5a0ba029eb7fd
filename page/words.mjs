// Every text of the page in English and Chinese: [English, Chinese], with {names} filled in.

/** @type {Record<string, [string, string]>} */
export const WORDS = {
  // The page
  language: ["中文", "English"],
  theme: ["Dark or light", "深色或浅色"],
  loading: ["Unpacking the network …", "正在解开网络……"],
  working: ["Computing …", "计算中……"],
  took: ["{milliseconds} ms on this computer", "在本机用时 {milliseconds} 毫秒"],
  offline: ["Everything is computed in this page. No picture leaves this computer.",
    "一切都在本页面内计算，图片不会离开这台电脑。"],
  lacking: ["This browser lacks {names}: open the page in a current Chrome, Edge, Firefox or Safari.",
    "此浏览器缺少 {names}：请用新版 Chrome、Edge、Firefox 或 Safari 打开。"],
  failed: ["That did not work: {why}", "出错了：{why}"],
  made_by: ["What made this", "由什么生成"],
  made: ["{network}, {parameters} parameters, trained on {dataset}; {checkpoint}{figures}",
    "{network}，{parameters} 个参数，在 {dataset} 上训练；{checkpoint}{figures}"],
  runtime: ["Run by onnxruntime-web (Microsoft, MIT licence).", "由 onnxruntime-web（微软，MIT 许可证）运行。"],
  run: ["Run", "网络"],

  // Pictures in
  picture: ["Picture", "图片"],
  samples: ["Sample {number}", "样例 {number}"],
  choose: ["Choose a picture", "选择图片"],
  paste_hint: ["You can also drop a picture here, or paste one (Ctrl+V).", "也可以把图片拖到这里，或粘贴（Ctrl+V）。"],
  draw: ["Draw", "画"],
  camera: ["Camera", "摄像头"],
  camera_stop: ["Stop the camera", "关闭摄像头"],
  snap: ["Take a still", "拍一张"],
  clear: ["Clear", "清空"],
  colour: ["Colour", "颜色"],
  brush: ["Brush", "画笔"],
  drawing_area: ["Area to draw on, by pointer", "绘图区，用指针画"],
  the_picture: ["The picture that the network is shown", "给网络看的图片"],
  no_picture: ["{name} is no picture that this browser can read.", "{name} 不是此浏览器能读取的图片。"],
  no_camera: ["No camera: {why}", "没有摄像头：{why}"],
  turn: ["Turn", "旋转"], shift_x: ["Shift →", "平移 →"], shift_y: ["Shift ↓", "平移 ↓"],
  scale: ["Scale", "缩放"], reset: ["Reset", "还原"],

  // Classification
  title_classification: ["What does it see?", "它看见了什么？"],
  about_classification: ["A network that tells {count} classes apart", "能区分 {count} 个类别的网络"],
  likeliest: ["The five likeliest classes", "最可能的五个类别"],
  likeliest_note: ["Choose a class to see below which pixels speak for it.", "点一个类别，下方显示哪些像素支持它。"],
  maps: ["Inside: what each layer makes of it", "网络内部：每一层看到什么"],
  maps_note: ["Each square is one feature map: bright where the pattern of its kernel is found. Choose one.",
    "每个小方格是一张特征图：亮处表示找到了该卷积核的图案。点一张看看。"],
  layer: ["Layer", "层"],
  layer_name: ["{index}: {name} – {count} maps of {height}×{width}", "{index}：{name} – {count} 张 {height}×{width} 的图"],
  map: ["Map {index}", "特征图 {index}"],
  map_large: ["Map {index}, at most {most}", "特征图 {index}，最大值 {most}"],
  kernel: ["Its kernel, {height}×{width}, for each of {count} inputs (blue: negative, red: positive; batch norm is multiplied in)",
    "它的卷积核 {height}×{width}，对应 {count} 个输入（蓝为负，红为正；已乘入批归一化）"],
  kernel_rgb: ["Its kernel, {height}×{width}, in the colours it looks for", "它的卷积核 {height}×{width}，显示它寻找的颜色"],
  saw: ["What it saw where it answers most: {reach}×{reach} pixels", "响应最强处它看到的：{reach}×{reach} 像素"],
  transformer: ["Where the spatial transformer looks", "空间变换器看向哪里"],
  transformer_note: ["The frame is the part of the picture that is handed to the first layer. Turn, shift or scale the picture above: the frame follows, if the network has learned to.",
    "方框是交给第一层的部分。在上方旋转、平移、缩放图片：若网络学会了，方框会跟着变。"],
  framed: ["Its input with the frame", "输入与方框"],
  handed: ["What it hands on", "交出的结果"],
  saliency: ["Which pixels sway it", "哪些像素影响它"],
  saliency_note: ["Bright pixels are those whose small change would alter the score of “{name}” most.",
    "亮的像素稍有变化，“{name}”的分数就会变得最多。"],
  input_seen: ["What the network is given: {height}×{width} pixels", "网络的输入：{height}×{width} 像素"],
  heat: ["Saliency", "显著图"],
  overlaid: ["The pixels that count", "起作用的像素"],
  fool: ["Fool it", "骗过它"],
  fool_note: ["Each step changes the picture a little, by the gradient, until the network says another class. No pixel changes by more than a tenth.",
    "每一步沿梯度稍微改变图片，直到网络说出另一个类别。任何像素的改变都不超过十分之一。"],
  target: ["Make it say", "让它说"],
  step: ["One step", "走一步"],
  go: ["Until fooled", "直到骗过"],
  stop: ["Stop", "停止"],
  changed: ["The changed picture", "改变后的图片"],
  difference: ["What was changed, five times as strong", "改变量，放大五倍"],
  fool_state: ["After {steps} steps: {name} {share}, target {other}", "{steps} 步后：{name} {share}，目标 {other}"],
  fooled: ["Fooled after {steps} steps: {name} {share}", "{steps} 步后骗过：{name} {share}"],
};

let language = (navigator.language ?? "en").startsWith("zh") ? 1 : 0;

/** A text in the page's language. @param {string} key @param {Record<string, any>} values */
export function words(key, values = {}) {
  const text = WORDS[key][language];
  return text.replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

/** Have an element say a text, in whatever language the page is switched to.
 * @param {HTMLElement} element @param {string} key; of `aria-label` as well where `label` */
export function speak(element, key, values = {}, attribute = "") {
  element.dataset[attribute ? "label" : "words"] = JSON.stringify([key, values, attribute]);
  if (attribute) element.setAttribute(attribute, words(key, values));
  else element.textContent = words(key, values);
  return element;
}

/** Switch to the other language, all over the page. */
export function switchLanguage() {
  language = 1 - language;
  document.documentElement.lang = language ? "zh-Hans" : "en";
  for (const element of document.querySelectorAll("[data-words], [data-label]")) {
    for (const known of [element.dataset.words, element.dataset.label]) {
      if (known) speak(element, ...JSON.parse(known));
    }
  }
}

/** The page's language: en or zh. */
export function languageNow() {
  return language ? "zh" : "en";
}
