// The code flow with openid-client and oauth4webapi; a person signs in on our pages (person.mjs).

import assert from 'node:assert/strict'
import { test } from 'node:test'

import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'

import { Browser } from './person.mjs'

const env = name => process.env[`AUTHSERVER_${name}`] ?? assert.fail(`AUTHSERVER_${name} is not set`)
const url = env('URL')
const user = { username: env('USERNAME'), password: env('PASSWORD') }
const callback = env('CALLBACK')
const goodbye = env('GOODBYE')
const [id, secret, publicId, signerId] = ['CODE_ID', 'CODE_SECRET', 'CODE_PUBLIC_ID', 'CODE_SIGNER_ID'].map(env)
const jwk = JSON.parse(env('SIGNER_KEYS')).find(key => key.alg === 'ES256')
const insecure = { [oauth.allowInsecureRequests]: true }

const signingKey = async () => ({ key: await jose.importJWK(jwk, 'ES256'), kid: jwk.kid })
const configured = (client, proof) =>
  openid.discovery(new URL(url), client, undefined, proof, { execute: [openid.allowInsecureRequests] })

for (const way of ['plain', 'pushed', 'signed', 'fragment']) {
  test(`openid-client, request ${way}`, async () => {
    const { key, kid } = await signingKey()
    const config = way === 'plain' || way === 'fragment'
      ? await configured(id, openid.ClientSecretBasic(secret))
      : await configured(signerId, openid.PrivateKeyJwt({ key, kid }))
    openid.enableNonRepudiationChecks(config) // looks at the ID token's signature as well
    const pkceCodeVerifier = openid.randomPKCECodeVerifier()
    const [expectedState, expectedNonce] = [openid.randomState(), openid.randomNonce()]
    const request = {
      redirect_uri: callback, scope: 'openid profile', state: expectedState, nonce: expectedNonce, max_age: '600',
      code_challenge: await openid.calculatePKCECodeChallenge(pkceCodeVerifier), code_challenge_method: 'S256',
      ...(way === 'fragment' && { response_mode: 'fragment' }),
    }
    const address = {
      plain: () => openid.buildAuthorizationUrl(config, request),
      fragment: () => openid.buildAuthorizationUrl(config, request),
      pushed: () => openid.buildAuthorizationUrlWithPAR(config, request),
      signed: () => openid.buildAuthorizationUrlWithJAR(config, request, { key, kid }),
    }
    const browser = new Browser(user)
    const answer = await browser.goes((await address[way]()).href, callback)
    if (way === 'fragment') answer.search = answer.hash.slice(1)
    const tokens = await openid.authorizationCodeGrant(config, answer, {
      pkceCodeVerifier, expectedState, expectedNonce, maxAge: 600, idTokenExpected: true,
    })
    const { sub } = tokens.claims()
    const about = await openid.fetchUserInfo(config, tokens.access_token, sub)
    assert.equal(about.preferred_username, user.username)
    const refreshed = await openid.refreshTokenGrant(config, tokens.refresh_token)
    assert.equal(refreshed.claims().sub, sub)

    const out = openid.buildEndSessionUrl(config, {
      id_token_hint: tokens.id_token, post_logout_redirect_uri: goodbye, state: 'bye',
    })
    assert.equal((await browser.goes(out.href, goodbye)).searchParams.get('state'), 'bye')
    await assert.rejects(openid.refreshTokenGrant(config, refreshed.refresh_token), { error: 'invalid_grant' })
  })
}

test('openid-client, prompt=none without a sign-in', async () => {
  const config = await configured(id, openid.ClientSecretPost(secret))
  const address = openid.buildAuthorizationUrl(config, {
    redirect_uri: callback, scope: 'openid', prompt: 'none', state: 'the state',
    code_challenge: await openid.calculatePKCECodeChallenge(openid.randomPKCECodeVerifier()),
    code_challenge_method: 'S256',
  })
  const answer = await new Browser(user).goes(address.href, callback)
  await assert.rejects(
    openid.authorizationCodeGrant(config, answer, { expectedState: 'the state' }), { error: 'login_required' },
  )
})

test('oauth4webapi, public client', async () => {
  const issuer = new URL(url)
  const server = await oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, insecure))
  const client = { client_id: publicId }
  const [verifier, state, nonce] = [oauth.generateRandomCodeVerifier(), oauth.generateRandomState(), oauth.generateRandomNonce()]
  const address = new URL(server.authorization_endpoint)
  address.search = new URLSearchParams({
    client_id: publicId, response_type: 'code', redirect_uri: callback, scope: 'openid email', state, nonce,
    code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
  })
  const answer = await new Browser(user).goes(address.href, callback)
  assert.throws(() => oauth.validateAuthResponse(server, client, answer, 'another state'))
  const parameters = oauth.validateAuthResponse(server, client, answer, state)
  const ask = () => oauth.authorizationCodeGrantRequest(
    server, client, oauth.None(), parameters, callback, verifier, insecure)
  const response = await ask()
  const tokens = await oauth.processAuthorizationCodeResponse(
    server, client, response, { expectedNonce: nonce, requireIdToken: true })
  await oauth.validateApplicationLevelSignature(server, response, insecure)
  assert.equal(tokens.scope, 'openid email')

  const again = await ask() // a code works once; the second use takes back what the first gave
  await assert.rejects(oauth.processAuthorizationCodeResponse(server, client, again), { error: 'invalid_grant' })
  const refused = await oauth.refreshTokenGrantRequest(server, client, oauth.None(), tokens.refresh_token, insecure)
  await assert.rejects(oauth.processRefreshTokenResponse(server, client, refused), { error: 'invalid_grant' })
})
