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
  name: ["{name}", "{name}"],

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

  // Streets
  title_detection: ["What is where?", "哪里有什么？"],
  about_detection: ["A network that finds {count} kinds of things in photographs", "能在照片中找出 {count} 类物体的网络"],
  found: ["What is found", "找到的物体"],
  found_note: ["Every box with a score of at least the threshold.", "分数不低于阈值的每个框。"],
  found_read_note: ["Every box whose two scores, multiplied, are at least the threshold.", "两项分数的乘积不低于阈值的每个框。"],
  nothing: ["Nothing with so high a score.", "没有达到这一分数的物体。"],
  threshold: ["Threshold", "阈值"],
  thing: ["Thing", "物体"], score: ["Score", "分数"], read_as: ["Read as", "读作"],
  boxes_in: ["The picture with {count} boxes", "带 {count} 个框的图片"],
  took_read: ["Found in {milliseconds} ms, read in {reading} ms on this computer", "在本机用 {milliseconds} 毫秒找到，{reading} 毫秒读出"],
  title_segmentation: ["What is every pixel?", "每个像素是什么？"],
  about_segmentation: ["A network that labels pixels with {count} classes", "用 {count} 个类别标注像素的网络"],
  labels: ["What it labels", "标注结果"],
  labels_note: ["Share of the pixels. Leave out a class to see what is below it.", "占像素的比例。取消一个类别，可以看到下面的图片。"],
  opacity: ["Opacity", "不透明度"],
  labelled: ["The picture in the colours of its labels", "按标签着色的图片"],

  // Style
  title_style: ["A picture in its style", "画成这种风格"],
  about_style: ["A network that has learned to paint in one style", "学会了一种画风的网络"],
  painted: ["Painted", "画好的图片"],
  save: ["Save the picture", "保存图片"],
  side: ["Pixels a side", "边长（像素）"],

  // Clips
  title_video: ["What happens?", "发生了什么？"],
  about_video: ["A network that tells {count} classes of clips of {frames} frames apart", "能区分 {count} 类片段（每段 {frames} 帧）的网络"],
  clip: ["Clip", "片段"],
  clip_note: ["{frames} frames are taken, a twelfth of a second apart.", "取 {frames} 帧，间隔十二分之一秒。"],
  the_clip: ["The clip that the network is shown", "给网络看的片段"],
  sample_clip: ["Sample {number}: {name}", "样例 {number}：{name}"],
  choose_film: ["Choose a film", "选择视频"],
  record: ["Record by camera", "用摄像头录制"],
  recording: ["Recording {number} of {count}", "录制中 {number} / {count}"],
  no_film: ["{name} is no film that this browser can read.", "{name} 不是此浏览器能读取的视频。"],
  after_each: ["What it says after each frame", "看完每一帧后怎么说"],
  after_each_note: ["Of the frames so far, the last one held: when does it know?", "只看到目前为止的帧，最后一帧保持不动：它何时知道答案？"],
  order: ["Does the order matter?", "顺序重要吗？"],
  order_note: ["The same frames as filmed, reversed and shuffled: who sees single frames alone says the same.",
    "同样的帧：原顺序、倒序、打乱。只看单帧的网络会给出同样的回答。"],
  as_filmed: ["As filmed", "原顺序"], reversed: ["Reversed", "倒序"], shuffled: ["Shuffled", "打乱"],
  shuffle_again: ["Shuffle again", "重新打乱"],

  // Diffusion
  title_diffusion: ["From words to a picture", "从文字到图片"],
  about_diffusion: ["A network that paints from noise, and knows {count} words", "从噪声作画的网络，认识 {count} 个词"],
  what: ["What is to be painted", "画什么"],
  prompt: ["Words", "文字"],
  other_prompt: ["Other words", "另一段文字"],
  other_note: ["Both begin with the same noise: change one word, and see what it changes. Leave it empty for one picture.",
    "两幅画从同样的噪声开始：改一个词，看看有什么变化。留空则只画一幅。"],
  seed: ["Seed of the noise", "噪声种子"],
  guidance: ["Guidance", "引导"],
  guidance_note: ["How much the words count: 1 as by themselves, 0 not at all.", "文字的分量：1 为本来的分量，0 为完全忽略。"],
  steps: ["Steps", "步数"],
  paint: ["Paint", "开始画"],
  painting: ["Step {step} of {steps}", "第 {step} 步，共 {steps} 步"],
  painted_in: ["{steps} steps in {seconds} s on this computer", "在本机 {steps} 步用时 {seconds} 秒"],
  unknown: ["Never learned, and so without meaning: {words}", "没学过、因此没有意义的词：{words}"],
  known_words: ["The words it knows", "它认识的词"],
  course: ["After each step: what it would be without the rest of the noise", "每一步之后：去掉剩余噪声会是什么样"],
  looks: ["Where each word looks, over its mean", "每个词看向哪里（与其平均值之比）"],
  looked_at: ["Where “{name}” looks", "“{name}”看向哪里"],
  after_step: ["After step {step}", "第 {step} 步之后"],

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

/** A text in the page's language. @param {string} key
 * @param {Record<string, any>} values to fill in; one that is of two languages is a pair */
export function words(key, values = {}) {
  const text = WORDS[key][language];
  return text.replace(/\{(\w+)\}/g, (_, name) => (Array.isArray(values[name]) ? values[name][language] : values[name] ?? ""));
}

/** A class's name as a text. @param {[string, string]} name */
export function named(name) {
  return ["name", { name }];
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
  document.dispatchEvent(new Event("language")); // for words that are drawn
}

/** The page's language: en or zh. */
export function languageNow() {
  return language ? "zh" : "en";
}
