// A person whose browser knows only HTTP: follows redirects, keeps cookies, fills in our pages.

import assert from 'node:assert/strict'

export class Browser {
  #cookies = new Map()
  #user

  constructor (user) {
    this.#user = user
  }

  // Goes to an address, signs in and allows whatever is asked, until it is sent to what begins with `until`.
  async goes (url, until) {
    let answer = await this.#fetch(url)
    for (let step = 0; step < 12; step++) {
      if (answer.status >= 300 && answer.status < 400) {
        url = new URL(answer.headers.get('location'), url).href
        if (url.startsWith(until)) return new URL(url)
        answer = await this.#fetch(url)
      } else {
        const page = await answer.text()
        assert.equal(answer.status, 200, page)
        const headers = { Origin: new URL(url).origin }
        answer = await this.#fetch(url, { method: 'POST', body: this.#filledIn(page), headers })
      }
    }
    assert.fail(`it goes round in circles: ${url}`)
  }

  #filledIn (page) {
    const form = new URLSearchParams({ form_token: page.match(/name="form_token" value="([^"]+)"/)[1] })
    if (page.includes('name="password"')) {
      form.set('username', this.#user.username)
      form.set('password', this.#user.password)
    }
    if (page.includes('name="decision"')) form.set('decision', 'allow')
    return form
  }

  async #fetch (url, options = {}) {
    const Cookie = [...this.#cookies].map(pair => pair.join('=')).join('; ')
    const answer = await fetch(url, { ...options, redirect: 'manual', headers: { ...options.headers, Cookie } })
    for (const line of answer.headers.getSetCookie()) {
      const [, name, value] = line.match(/^([^=]+)=([^;]*)/)
      this.#cookies.set(name, value)
    }
    return answer
  }
}
