export {
  areaY, axisX, axisY, barX, barY, dot, dotX, frame, gridX, gridY, lineX, lineY, link, plot, pointer, pointerX, rectY, ruleX, ruleY,
  text, textX, tickX, tip,
} from "@observablehq/plot";
