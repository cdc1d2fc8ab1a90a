// Looks at two pages in a headless browser: `node look.mjs MODULES CHROMIUM CALM.html VIOLATED.html [SHOTS]`.
// Ends with status 1 and the reason when something is not as it should be.
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [modules, executablePath, calm, violated, shots] = process.argv.slice(2);
const { chromium } = createRequire(`${modules}/`)("playwright-core");
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });

async function opened(file, colorScheme) {
  const page = await browser.newPage({ viewport: { width: 1400, height: 900 }, colorScheme });
  const complaints = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("dialog", (dialog) => { complaints.push(dialog.message()); dialog.dismiss(); });
  page.on("request", (request) => { if (request.url() !== pathToFileURL(file).href) complaints.push(request.url()); });
  await page.goto(pathToFileURL(file).href);
  await page.waitForSelector("body[data-ready=yes]");
  return { page, complaints };
}
const number = async (page, name) => Number(await page.getAttribute("body", `data-${name}`));
const becomes = (page, holds, given) => page.waitForFunction(holds, given);

try {
  {
    const { page, complaints } = await opened(calm, "light");
    const total = await number(page, "messages");
    assert.ok(total > 100, `${total} messages`);
    assert.ok(await page.isHidden("#banner"), "a calm run has no banner");

    // A message under the pointer tells its numbers.
    const [x, y, serial] = (await page.getAttribute("body", "data-arrow")).split(",").map(Number);
    const box = await page.locator("#stage").boundingBox();
    await page.mouse.move(box.x + x, box.y + y);
    await becomes(page, () => document.body.dataset.hovered !== "");
    const tip = await page.textContent("#tip");
    assert.match(tip, /view \d+ {3}op \d+/);
    assert.match(tip, /#\d+/);
    assert.ok(serial > 0);
    if (shots) await page.screenshot({ path: `${shots}/calm.png` });

    // Hiding a kind takes away as many arrows as it has.
    const before = await number(page, "matching");
    const kind = page.locator("#kinds button[data-kind=Prepare]");
    const prepares = Number(await kind.getAttribute("data-count"));
    await kind.click();
    await becomes(page, (wanted) => Number(document.body.dataset.matching) === wanted, before - prepares);
    await kind.click();
    await becomes(page, (wanted) => Number(document.body.dataset.matching) === wanted, before);

    // So do a lane and a search.
    await page.selectOption("#actor", "1");
    await becomes(page, (most) => Number(document.body.dataset.matching) < most, before);
    await page.selectOption("#actor", "");
    await page.fill("#search", "preparEok r1 > r0");
    await becomes(page, (most) => { const n = Number(document.body.dataset.matching); return n > 0 && n < most; }, before);
    await page.fill("#search", "");
    await becomes(page, (wanted) => Number(document.body.dataset.matching) === wanted, before);

    // The slider moves the window, keys too, and only what is inside is drawn.
    const from = await number(page, "from");
    await page.locator("#slider").fill("5000");
    await becomes(page, (was) => Number(document.body.dataset.from) > was, from);
    assert.ok(await number(page, "visible") < total);
    const middle = await number(page, "from");
    await page.locator("#stage").focus();
    await page.keyboard.press("ArrowLeft");
    await becomes(page, (was) => Number(document.body.dataset.from) < was, middle);
    await page.keyboard.press("0");
    await becomes(page, (wanted) => Number(document.body.dataset.visible) === wanted, total);
    if (shots) await page.screenshot({ path: `${shots}/whole.png` });
    assert.deepEqual(complaints, []);
  }
  {
    const { page, complaints } = await opened(violated, "dark");
    assert.match(await page.textContent("#headline"), /^O1 violated: /);
    assert.match(await page.textContent("#found"), /<\/script><img/);
    assert.equal(await page.locator("img").count(), 0);
    await page.locator("#stage").focus();
    await page.keyboard.press("Home");
    await page.keyboard.press("+");
    await becomes(page, () => Number(document.body.dataset.to) < 2e7);
    await page.click("#jump");
    await becomes(page, () => Number(document.body.dataset.to) > 2e7);
    if (shots) await page.screenshot({ path: `${shots}/violated.png` });
    assert.deepEqual(complaints, []);
  }
} finally {
  await browser.close();
}
