// Calls to the service. The API key, if one is needed, lives in this module's memory alone.

let key = "";

export function useKey(value) {
  key = value;
}

/** An answer that is an error, in words. */
export class Problem extends Error {
  constructor(title, detail, status = 0, code = "") {
    super(detail);
    Object.assign(this, { title, status, code });
  }
}

async function call(path, parameters, options = {}) {
  const query = new URLSearchParams(parameters).toString();
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  let response;
  try {
    response = await fetch(query ? `${path}?${query}` : path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("No answer.", "The server cannot be reached; is it still running?");
  }
  if (response.ok) return response;
  throw await problem(response);
}

async function problem(response) {
  let { title, detail, code, errors } = {};
  try {
    ({ title, detail, code, errors } = await response.json());
  } catch {
    // A proxy's error page is no problem document.
  }
  if (errors) detail = errors.map(({ parameter, message }) => `${parameter}: ${message}`).join("; ");
  const wait = response.headers.get("Retry-After");
  if (wait) detail = `${detail ?? ""} Try again in ${wait} s.`;
  return new Problem(
    `${title ?? `The server answered ${response.status}`}.`, detail ?? "", response.status, code,
  );
}

export async function fetchModels() {
  return (await call("models")).json();
}

export async function fetchPose(photo, parameters, signal) {
  return (await call("pose", parameters, { method: "POST", body: photo, signal })).json();
}

/** A heatmap as a picture and where it lies on the photo: x = a * column + b * row + c, ... */
export async function fetchHeatmap(parameters, signal) {
  const response = await call("heatmap", parameters, { signal });
  const affine = response.headers.get("Subpose-Affine").split(",").map(Number);
  return { bitmap: await createImageBitmap(await response.blob()), affine };
}
