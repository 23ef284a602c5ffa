// Node's OAuth clients against a running server: node --test, with AUTHSERVER_URL and the rest in the environment.
// tests/interop/test_node_clients.py starts the server, makes the clients and the user, and runs this.

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { OAuth2Client } from '@badgateway/oauth2-client'
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import { UserManager, WebStorageStateStore } from 'oidc-client-ts'
import * as openid from 'openid-client'
import simple from 'simple-oauth2'

const env = name => process.env[`AUTHSERVER_${name}`] ?? assert.fail(`AUTHSERVER_${name} is not set`)
const url = env('URL')
const user = { username: env('USERNAME'), password: env('PASSWORD') }
const [id, secret, publicId] = [env('CLIENT_ID'), env('CLIENT_SECRET'), env('PUBLIC_CLIENT_ID')]
const resourceServer = `${env('RESOURCE_SERVER_ID')}:${env('RESOURCE_SERVER_SECRET')}`
const wrong = { ...user, password: 'not the password at all' }

const active = async token => {
  const headers = { Authorization: 'Basic ' + btoa(resourceServer) }
  const answer = await fetch(`${url}/introspect`, { method: 'POST', headers, body: new URLSearchParams({ token }) })
  assert.equal(answer.status, 200)
  return (await answer.json()).active
}

const insecure = { [oauth.allowInsecureRequests]: true }

for (const algorithm of ['oauth2', 'oidc']) {
  for (const [method, client, proof] of [
    ['Basic', { client_id: id }, oauth.ClientSecretBasic(secret)],
    ['body', { client_id: id }, oauth.ClientSecretPost(secret)],
    ['public', { client_id: publicId }, oauth.None()],
  ]) {
    test(`oauth4webapi, ${algorithm} discovery, ${method}`, async () => {
      const issuer = new URL(url)
      const server = await oauth.processDiscoveryResponse(
        issuer, await oauth.discoveryRequest(issuer, { algorithm, ...insecure }),
      )
      const form = new URLSearchParams({ ...user, scope: 'openid email' })
      const first = await oauth.processGenericTokenEndpointResponse(
        server, client, await oauth.genericTokenEndpointRequest(server, client, proof, 'password', form, insecure),
      )
      assert.equal(first.token_type, 'bearer')
      assert.equal(first.scope, 'openid email')

      const { sub } = jose.decodeJwt(first.access_token)
      const about = await oauth.processUserInfoResponse(
        server, client, sub, await oauth.userInfoRequest(server, client, first.access_token, insecure),
      )
      assert.equal(about.email, `${user.username}@example.com`)

      const second = await oauth.processRefreshTokenResponse(
        server, client, await oauth.refreshTokenGrantRequest(server, client, proof, first.refresh_token, insecure),
      )
      assert.notEqual(second.refresh_token, first.refresh_token)

      if (method !== 'public') {
        const known = await oauth.processIntrospectionResponse(
          server, client, await oauth.introspectionRequest(server, client, proof, second.access_token, insecure),
        )
        assert.equal(known.active, true)
        assert.equal(known.username, user.username)
      }

      const request = new Request('https://api.example/', { headers: { Authorization: `Bearer ${second.access_token}` } })
      const claims = await oauth.validateJwtAccessToken(server, request, url, insecure)
      assert.equal(claims.client_id, client.client_id)

      await oauth.processRevocationResponse(
        await oauth.revocationRequest(server, client, proof, second.refresh_token, insecure),
      )
      assert.equal(await active(second.access_token), false)
      const late = await oauth.refreshTokenGrantRequest(server, client, proof, second.refresh_token, insecure)
      await assert.rejects(oauth.processRefreshTokenResponse(server, client, late), { error: 'invalid_grant', status: 400 })
    })
  }
}

test('oauth4webapi understands every refusal', async () => {
  const server = { issuer: url, token_endpoint: `${url}/token` }
  const ask = async (client, proof, grant, form) => oauth.processGenericTokenEndpointResponse(
    server, client, await oauth.genericTokenEndpointRequest(server, client, proof, grant, new URLSearchParams(form), insecure),
  )
  const client = { client_id: id }
  const proof = oauth.ClientSecretBasic(secret)
  await assert.rejects(ask(client, proof, 'password', wrong), { error: 'invalid_grant' })
  await assert.rejects(ask(client, proof, 'urn:example:other', {}), { error: 'unsupported_grant_type' })
  await assert.rejects(ask(client, proof, 'password', { ...user, scope: 'root' }), { error: 'invalid_scope' })
  await assert.rejects(
    ask(client, oauth.ClientSecretBasic('wrong'), 'password', user),
    error => error instanceof oauth.WWWAuthenticateChallengeError && error.status === 401
      && error.cause[0].scheme === 'basic' && 'realm' in error.cause[0].parameters,
  )
  await assert.rejects(
    ask(client, oauth.ClientSecretPost('wrong'), 'password', user), { error: 'invalid_client', status: 401 },
  )
})

for (const algorithm of ['oauth2', 'oidc']) {
  for (const [method, clientId, proof] of [
    ['Basic', id, openid.ClientSecretBasic(secret)],
    ['body', id, openid.ClientSecretPost(secret)],
    ['public', publicId, openid.None()],
  ]) {
    test(`openid-client, ${algorithm} discovery, ${method}`, async () => {
      const execute = [openid.allowInsecureRequests]
      const config = await openid.discovery(new URL(url), clientId, undefined, proof, { algorithm, execute })
      const first = await openid.genericGrantRequest(config, 'password', { ...user, scope: 'openid profile' })
      assert.ok(first.expiresIn() > 0)
      const { sub } = jose.decodeJwt(first.access_token)
      const about = await openid.fetchUserInfo(config, first.access_token, sub)
      assert.equal(about.preferred_username, user.username)
      const second = await openid.refreshTokenGrant(config, first.refresh_token)
      if (method !== 'public') {
        assert.equal((await openid.tokenIntrospection(config, second.access_token)).active, true)
        const hint = { token_type_hint: 'refresh_token' }
        assert.equal((await openid.tokenIntrospection(config, second.refresh_token, hint)).active, true)
        assert.equal((await openid.tokenIntrospection(config, first.refresh_token, hint)).active, false)
      }
      await openid.tokenRevocation(config, second.access_token)
      assert.equal(await active(second.access_token), false)
      await openid.tokenRevocation(config, second.refresh_token, { token_type_hint: 'refresh_token' })
      await assert.rejects(openid.refreshTokenGrant(config, second.refresh_token), { error: 'invalid_grant' })
      await assert.rejects(openid.genericGrantRequest(config, 'password', wrong), { error: 'invalid_grant' })
    })
  }
}

for (const authorizationMethod of ['header', 'body']) {
  test(`simple-oauth2, ${authorizationMethod}`, async () => {
    const client = new simple.ResourceOwnerPassword({
      client: { id, secret },
      auth: { tokenHost: url, tokenPath: '/token', revokePath: '/revoke' },
      options: { authorizationMethod },
    })
    const first = await client.getToken({ ...user, scope: 'openid' })
    assert.equal(first.expired(), false)
    const second = await first.refresh()
    assert.equal(await active(second.token.access_token), true)
    await second.revoke('access_token')
    assert.equal(await active(second.token.access_token), false)
    const third = await second.refresh()
    await third.revokeAll()
    assert.equal(await active(third.token.access_token), false)
    await assert.rejects(third.refresh(), error => error.data.payload.error === 'invalid_grant')
    await assert.rejects(client.getToken(wrong), error => error.data.payload.error === 'invalid_grant')
  })
}

for (const [method, settings] of [
  ['Basic', { clientId: id, clientSecret: secret, authenticationMethod: 'client_secret_basic' }],
  ['body', { clientId: id, clientSecret: secret, authenticationMethod: 'client_secret_post' }],
  ['public', { clientId: publicId }],
]) {
  test(`@badgateway/oauth2-client, ${method}`, async () => {
    const client = new OAuth2Client({ server: url, discoveryEndpoint: '/.well-known/oauth-authorization-server', ...settings })
    const first = await client.password({ ...user, scope: ['openid'] })
    const second = await client.refreshToken(first)
    assert.notEqual(second.refreshToken, first.refreshToken)
    if (method !== 'public') assert.equal((await client.introspect(second)).active, true)
    await client.revoke(second, 'access_token')
    assert.equal(await active(second.accessToken), false)
    await client.revoke(second, 'refresh_token')
    await assert.rejects(client.refreshToken(second), { oauth2Code: 'invalid_grant' })
    await assert.rejects(client.password(wrong), { oauth2Code: 'invalid_grant' })
  })
}

test('oidc-client-ts, public, no browser', async t => {
  const kept = new Map()
  const store = {
    get length() { return kept.size },
    getItem: key => kept.get(key) ?? null,
    key: index => [...kept.keys()][index],
    removeItem: key => kept.delete(key),
    setItem: (key, value) => kept.set(key, value),
  }
  globalThis.window ??= globalThis
  const manager = new UserManager({
    authority: url,
    client_id: publicId,
    redirect_uri: 'https://app.example/back',
    scope: 'openid profile',
    loadUserInfo: true,
    automaticSilentRenew: false,
    userStore: new WebStorageStateStore({ store }),
    stateStore: new WebStorageStateStore({ store }),
  })
  t.after(() => manager.removeUser()) // its timers would keep the process alive
  const first = await manager.signinResourceOwnerCredentials(user)
  assert.equal(first.profile.preferred_username, user.username)
  const second = await manager.signinSilent()
  assert.notEqual(second.refresh_token, first.refresh_token)
  assert.equal(await active(second.access_token), true)
  await manager.revokeTokens()
  assert.equal(await active(second.access_token), false)
})

test('jose verifies an access token offline', async () => {
  const form = new URLSearchParams({ grant_type: 'password', client_id: publicId, ...user })
  const { access_token: token } = await (await fetch(`${url}/token`, { method: 'POST', body: form })).json()
  const keys = jose.createRemoteJWKSet(new URL(`${url}/.well-known/jwks.json`))
  const options = { issuer: url, audience: url, typ: 'at+jwt', algorithms: ['ES256'], requiredClaims: ['sid', 'jti'] }
  const { payload } = await jose.jwtVerify(token, keys, options)
  assert.equal(payload.username, user.username)
  const [head, , signature] = token.split('.')
  const forged = [head, jose.base64url.encode(JSON.stringify({ ...payload, sub: 'somebody else' })), signature].join('.')
  await assert.rejects(jose.jwtVerify(forged, keys, options), { code: 'ERR_JWS_SIGNATURE_VERIFICATION_FAILED' })
})

const signer = { id: env('SIGNER_ID'), keys: JSON.parse(env('SIGNER_KEYS')) }
const secretSigner = { id: env('SECRET_SIGNER_ID'), secret: env('SECRET_SIGNER_SECRET') }
const webCrypto = {
  ES256: { name: 'ECDSA', namedCurve: 'P-256' },
  ES384: { name: 'ECDSA', namedCurve: 'P-384' },
  RS256: { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' },
  EdDSA: { name: 'Ed25519' },
}
const imported = ({ alg, ...key }) => crypto.subtle.importKey('jwk', key, webCrypto[alg], false, ['sign'])

for (const key of signer.keys) {
  test(`oauth4webapi and openid-client, private_key_jwt with ${key.alg}`, async () => {
    const issuer = new URL(url)
    const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
    const proof = { key: await imported(key), kid: key.kid }
    const client = { client_id: signer.id }
    const form = new URLSearchParams(user)
    const first = await oauth.processGenericTokenEndpointResponse(
      server, client,
      await oauth.genericTokenEndpointRequest(server, client, oauth.PrivateKeyJwt(proof), 'password', form, insecure),
    )
    const config = await openid.discovery(
      issuer, signer.id, undefined, openid.PrivateKeyJwt(proof), { execute: [openid.allowInsecureRequests] },
    )
    const second = await openid.refreshTokenGrant(config, first.refresh_token)
    assert.equal((await openid.tokenIntrospection(config, second.access_token)).active, true)
    await openid.tokenRevocation(config, second.refresh_token)
    assert.equal(await active(second.access_token), false)
  })
}

test('oauth4webapi and openid-client, client_secret_jwt', async () => {
  const issuer = new URL(url)
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
  const client = { client_id: secretSigner.id }
  const form = new URLSearchParams(user)
  const first = await oauth.processGenericTokenEndpointResponse(
    server, client, await oauth.genericTokenEndpointRequest(
      server, client, oauth.ClientSecretJwt(secretSigner.secret), 'password', form, insecure,
    ),
  )
  const config = await openid.discovery(
    issuer, secretSigner.id, undefined, openid.ClientSecretJwt(secretSigner.secret),
    { execute: [openid.allowInsecureRequests] },
  )
  await openid.refreshTokenGrant(config, first.refresh_token)
})
