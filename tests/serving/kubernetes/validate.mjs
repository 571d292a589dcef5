// Run beside the packages it loads. Manifests on standard input, as a JSON list: each is validated by its model of
// @kubernetes-models, and written as a typed literal, for which TypeScript then finds every key that the type has not.
import fs from "node:fs";
import path from "node:path";
import { execFileSync } from "node:child_process";

const PACKAGES = {
  "gateway.networking.k8s.io/v1": "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1",
  "keda.sh/v1alpha1": "@kubernetes-models/keda/keda.sh/v1alpha1",
  "monitoring.coreos.com/v1": "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1",
  "apps/v1": "kubernetes-models/apps/v1",
  "autoscaling/v2": "kubernetes-models/autoscaling/v2",
  "batch/v1": "kubernetes-models/batch/v1",
  "networking.k8s.io/v1": "kubernetes-models/networking.k8s.io/v1",
  "policy/v1": "kubernetes-models/policy/v1",
  v1: "kubernetes-models/v1",
};

const folder = import.meta.dirname;
const lines = [];
const faults = [];
for (const [place, manifest] of JSON.parse(fs.readFileSync(0, "utf8")).entries()) {
  const name = `${PACKAGES[manifest.apiVersion]}/${manifest.kind}`;
  try {
    const loaded = await import(name);
    new (loaded[manifest.kind] ?? loaded.default[manifest.kind])(manifest).validate();
  } catch (error) {
    faults.push(`${manifest.kind} ${manifest.metadata.name}: ${error.message}`);
  }
  lines.push(`import type { I${manifest.kind} as T${place} } from "${name}";`);
  lines.push(`export const m${place}: T${place} = ${JSON.stringify(manifest)};`);
}
const source = path.join(fs.mkdtempSync(path.join(folder, "check-")), "manifests.ts");
fs.writeFileSync(source, lines.join("\n"));
try {
  const options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "esnext", "--moduleResolution", "bundler"];
  execFileSync(path.join(folder, "node_modules/.bin/tsc"), [...options, source], { encoding: "utf8" });
} catch (error) {
  faults.push(error.stdout);
} finally {
  fs.rmSync(path.dirname(source), { recursive: true });
}
console.log([...faults, `${lines.length / 2} manifests, ${faults.length} faults`].join("\n"));
process.exit(faults.length ? 1 : 0);
