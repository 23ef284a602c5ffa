// A single-page app that signs people in at authserver: the code flow with PKCE, without library or build.
// Tokens are in this page's memory only. A reload loses them; "Sign in" brings them back without asking for a password.

const [issuer, clientId] = ["issuer", "client-id"].map((name) => document.querySelector(`meta[name=${name}]`).content);
const here = location.origin + location.pathname;
const button = (id) => document.getElementById(id);
let server, tokens, user;

async function start() {
  server = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
  button("sign-in").onclick = () => attempt(signIn);
  button("refresh").onclick = () => attempt(refresh);
  button("sign-out").onclick = signOut;
  if (location.search) await comeBack();
}

async function signIn() {
  const question = { state: random(), nonce: random(), verifier: random() };
  sessionStorage.setItem("question", JSON.stringify(question)); // survives the way there and back, in this tab
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(question.verifier));
  leaveFor(server.authorization_endpoint, {
    response_type: "code", client_id: clientId, redirect_uri: here, scope: "openid profile email",
    state: question.state, nonce: question.nonce,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: "S256",
  });
}

async function comeBack() {
  const answer = new URLSearchParams(location.search);
  const question = JSON.parse(sessionStorage.getItem("question"));
  sessionStorage.removeItem("question");
  history.replaceState(null, "", here); // neither history nor Referer shall hold the code
  if (!question || answer.get("state") !== question.state || answer.get("iss") !== issuer) {
    throw new Error("This answer is not to a question of ours.");
  }
  if (answer.has("error")) throw new Error(answer.get("error"));
  tokens = await ask({
    grant_type: "authorization_code", code: answer.get("code"), redirect_uri: here, code_verifier: question.verifier,
  });
  user = await about(claims(tokens.id_token, question.nonce).sub);
}

async function refresh() {
  tokens = { ...tokens, ...(await ask({ grant_type: "refresh_token", refresh_token: tokens.refresh_token })) };
  user = { ...(await about(user.sub)), refreshed: (user.refreshed ?? 0) + 1 };
}

async function about(subject) {
  const answer = await fetch(server.userinfo_endpoint, { headers: { Authorization: `Bearer ${tokens.access_token}` } });
  if (!answer.ok) throw new Error(`userinfo: ${answer.status}`);
  const read = await answer.json();
  if (read.sub !== subject) throw new Error("These are two people.");
  return read;
}

function signOut() {
  leaveFor(server.end_session_endpoint, { id_token_hint: tokens.id_token, post_logout_redirect_uri: here });
}

async function ask(form) {
  const body = new URLSearchParams({ client_id: clientId, ...form });
  const answer = await fetch(server.token_endpoint, { method: "POST", body });
  const document = await answer.json();
  if (answer.status === 400) tokens = user = undefined; // the sign-in is over; 429 and 503 only ask for patience
  if (!answer.ok) throw new Error(document.error);
  return document;
}

// The token came from the server itself, so its signature need not be looked at (OpenID Connect Core §3.1.3.7, 6).
function claims(idToken, nonce) {
  const bytes = Uint8Array.from(atob(idToken.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  const read = JSON.parse(new TextDecoder().decode(bytes));
  if (read.iss !== issuer || ![read.aud].flat().includes(clientId) || read.nonce !== nonce || read.exp * 1000 < Date.now()) {
    throw new Error("The ID token is not for us.");
  }
  return read;
}

function leaveFor(endpoint, parameters) {
  location.assign(`${endpoint}?${new URLSearchParams(parameters)}`);
}

function random() {
  return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64url(bytes) {
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

async function attempt(step) {
  let fault;
  try {
    await step();
  } catch (error) {
    fault = error.message;
  }
  const greeting = user ? `Hello ${user.preferred_username} (${user.email}).` : "Nobody is signed in.";
  const refreshed = user?.refreshed ? ` Refreshed: ${user.refreshed}.` : "";
  document.getElementById("status").textContent = fault ? `${greeting} ${fault}` : greeting + refreshed;
  button("sign-in").hidden = Boolean(user);
  button("refresh").hidden = button("sign-out").hidden = !user;
}

attempt(start);
