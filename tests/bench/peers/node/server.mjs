// node-oidc-provider as its users run it: Redis behind it, a process a core.
//   node server.mjs serve PORT REDIS PROCESSES
//   node server.mjs seed REDIS KIND COUNT          prints so many tokens; KIND: access, refresh, openid, signed
// A request with `resource` gets a signed access token (RFC 9068), as all of ours are.
import cluster from 'node:cluster';
import { Redis } from 'ioredis';
import Provider from 'oidc-provider';

const CLIENT = { client_id: 'bench', client_secret: 'a secret of the benchmark, long enough' };
const KEY = {
  kty: 'EC', crv: 'P-256', use: 'sig', alg: 'ES256',
  x: 'f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU', y: 'x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0',
  d: 'jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI', // RFC 7515, A.3
};
const RESOURCE = 'https://api.example';
const USED_ONCE = new Set(['AuthorizationCode', 'RefreshToken', 'DeviceCode', 'BackchannelAuthenticationRequest']);

// The adapter of the project's own example (example/adapters/redis.js), without what these operations do not touch.
function adapterOn(redis) {
  return class {
    constructor(model) { this.model = model; }

    key(id) { return `oidc:${this.model}:${id}`; }

    async upsert(id, payload, seconds) {
      const key = this.key(id), text = JSON.stringify(payload), all = redis.multi();
      if (USED_ONCE.has(this.model)) all.hset(key, { payload: text }); else all.set(key, text);
      if (seconds) all.expire(key, seconds);
      if (payload.grantId && this.model !== 'Grant') {
        const list = `oidc:grant:${payload.grantId}`;
        all.rpush(list, key);
        if (seconds > await redis.ttl(list)) all.expire(list, seconds);
      }
      await all.exec();
    }

    async find(id) {
      if (!USED_ONCE.has(this.model)) {
        const text = await redis.get(this.key(id));
        return text ? JSON.parse(text) : undefined;
      }
      const { payload, consumed } = await redis.hgetall(this.key(id));
      return payload && { ...(consumed && { consumed: Number(consumed) }), ...JSON.parse(payload) };
    }

    async consume(id) { await redis.hset(this.key(id), 'consumed', Math.floor(Date.now() / 1000)); }

    async destroy(id) { await redis.del(this.key(id)); }

    async revokeByGrantId(grantId) {
      const list = `oidc:grant:${grantId}`;
      await redis.del(list, ...await redis.lrange(list, 0, -1));
    }
  };
}

function provider(port, redisUrl) {
  const made = new Provider(`http://127.0.0.1:${port}`, {
    adapter: adapterOn(new Redis(redisUrl)),
    clients: [{
      ...CLIENT, grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
      redirect_uris: ['https://app.example/callback'], id_token_signed_response_alg: 'ES256',
      token_endpoint_auth_method: 'client_secret_basic', scope: 'openid profile email offline_access',
    }],
    jwks: { keys: [KEY] },
    claims: { openid: ['sub'], profile: ['preferred_username'], email: ['email'] },
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, preferred_username: id, email: `${id}@example.com` }) }),
    features: {
      introspection: { enabled: true }, revocation: { enabled: true }, clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: () => ({ scope: 'profile email', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'ES256' } } }),
      },
    },
    rotateRefreshToken: true,
    ttl: { AccessToken: 3600, ClientCredentials: 3600, RefreshToken: 86400, Grant: 86400 },
    cookies: { keys: ['of the benchmark'] },
  });
  made.on('server_error', (_, error) => console.error(error));
  return made;
}

async function seed(redisUrl, kind, count) {
  const made = provider(1, redisUrl), client = await made.Client.find(CLIENT.client_id);
  // Without `openid` a refresh signs no ID token, as ours does not for a password grant.
  const [Model, scope, each] = {
    access: [made.AccessToken, 'openid profile email', 50],
    openid: [made.RefreshToken, 'openid profile email offline_access', 1],
  }[kind] ?? [made.RefreshToken, 'profile email offline_access', 1];
  const resource = kind === 'signed' ? RESOURCE : undefined, tokens = [];
  while (tokens.length < count) {
    const accountId = `user-${tokens.length}`, grant = new made.Grant({ accountId, clientId: client.clientId });
    grant.addOIDCScope('openid profile email offline_access');
    if (resource) grant.addResourceScope(resource, scope);
    const common = { accountId, client, grantId: await grant.save(), gty: 'authorization_code', claims: {}, scope, resource, authTime: Math.floor(Date.now() / 1000) };
    tokens.push(...await Promise.all(Array.from({ length: each }, () => new Model(common).save())));
  }
  process.stdout.write(JSON.stringify(tokens), () => process.exit(0));
}

const [what, ...rest] = process.argv.slice(2);
if (what === 'seed') {
  await seed(rest[0], rest[1], Number(rest[2]));
} else if (cluster.isPrimary) {
  for (let number = 0; number < Number(rest[2]); number += 1) cluster.fork();
} else {
  provider(Number(rest[0]), rest[1]).listen(Number(rest[0]), '127.0.0.1');
}
