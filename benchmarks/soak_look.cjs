// For the soak, with `node --require`: whoever connects to the socket named by SOAK_LOOK is told how
// many bytes the heap holds after a collection. Until node has a reason to collect, it fills up.
"use strict";
const fs = require("node:fs");
const net = require("node:net");
const v8 = require("node:v8");
const vm = require("node:vm");

v8.setFlagsFromString("--expose-gc");
const collect = vm.runInNewContext("gc");
fs.rmSync(process.env.SOAK_LOOK, { force: true });
const server = net.createServer((asker) => {
  // Twice: what the first frees may hold more.
  collect();
  collect();
  const { heapUsed, external } = process.memoryUsage();
  asker.on("error", () => asker.destroy());
  asker.end(JSON.stringify(heapUsed + external));
});
server.listen(process.env.SOAK_LOOK);
server.unref();
