// Names of classes in Chinese, of traffic signs those of GB 5768.2: of lists that many networks share.
import { plainName } from "./numbers.mjs";

/** Lists of classes. Those that all are in one of them have these names; others stay as they are. */
const LISTS = {
  signs: { // and what else stands in drawn streets
    "speed limit 20": "限速 20", "speed limit 30": "限速 30", "speed limit 50": "限速 50", "speed limit 60": "限速 60",
    "speed limit 70": "限速 70", "speed limit 80": "限速 80", "end of speed limit 80": "解除限速 80",
    "speed limit 100": "限速 100", "speed limit 120": "限速 120", "no overtaking": "禁止超车",
    "no overtaking by trucks": "禁止货车超车", "priority crossing": "路口优先通行", "priority road": "干路先行",
    "give way": "减速让行", stop: "停车让行", "no vehicles": "禁止车辆通行", "no trucks": "禁止货车驶入", "no entry": "禁止驶入",
    "general caution": "注意危险", "curve left": "向左急弯路", "curve right": "向右急弯路", "double curve": "反向弯路",
    "bumpy road": "路面不平", "slippery road": "易滑", "road narrows": "窄路", "road works": "道路施工",
    "traffic signals": "注意信号灯", pedestrians: "注意行人", children: "注意儿童", bicycles: "注意自行车",
    snow: "注意路面结冰", "wild animals": "注意野生动物", "end of limits": "解除一切限制", "turn right": "向右转弯",
    "turn left": "向左转弯", "ahead only": "直行", "ahead or right": "直行和向右转弯", "ahead or left": "直行和向左转弯",
    "keep right": "靠右侧道路行驶", "keep left": "靠左侧道路行驶", roundabout: "环岛行驶",
    "end of no overtaking": "解除禁止超车", "end of no overtaking by trucks": "解除禁止货车超车",
    car: "轿车", van: "厢式车", lorry: "货车", bus: "公共汽车", person: "行人", cyclist: "骑车人", "traffic light": "信号灯",
    plate: "辅助标志", back: "标志背面",
  },
  street: {
    sky: "天空", building: "建筑物", pole: "杆", road: "路面", pavement: "人行道", tree: "树木", sign: "标志", fence: "围栏",
    car: "汽车", pedestrian: "行人", bicyclist: "骑车人",
  },
  motion: {
    still: "静止", left: "向左", right: "向右", up: "向上", down: "向下", nearer: "靠近", farther: "远离",
    "turning clockwise": "顺时针转动", "turning counter clockwise": "逆时针转动", blinking: "闪烁",
  },
  order: { "no entry first": "先禁止驶入", "priority road first": "先干路先行" },
  things: { // CIFAR-10's, VOC's, the book's
    airplane: "飞机", automobile: "轿车", bird: "鸟", cat: "猫", deer: "鹿", dog: "狗", frog: "青蛙", horse: "马", ship: "轮船",
    truck: "卡车", background: "背景", aeroplane: "飞机", bicycle: "自行车", boat: "船", bottle: "瓶子", bus: "公共汽车",
    car: "汽车", chair: "椅子", cow: "牛", diningtable: "餐桌", motorbike: "摩托车", person: "人", "potted plant": "盆栽",
    pottedplant: "盆栽", sheep: "羊", sofa: "沙发", train: "火车", "tv/monitor": "电视或显示器", tvmonitor: "电视或显示器",
    banana: "香蕉",
  },
};

/** Classes as [English, Chinese], both the same where the list is another. @param {string[]} classes */
export function inBoth(classes) {
  const plain = classes.map(plainName);
  const known = Object.values(LISTS).find((list) => plain.every((name) => Object.hasOwn(list, name)));
  return plain.map((name) => [name, known?.[name] ?? name]);
}
