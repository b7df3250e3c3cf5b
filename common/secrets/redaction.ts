/** The user and the password of a URL. A password may have characters that are not encoded, so the last @ ends it. */
const USER_INFO = /\b([a-z][a-z0-9+.-]*:\/\/)[^\n]*@/gi;

/** The text without users and passwords of URLs: `http://…@host`. Of a line with several URLs, only the last host remains. */
export function withoutPasswords(text: string): string {
  return text.replace(USER_INFO, "$1…@");
}

/** A wrong value of a setting or an argument, which may be an address with a password and without a scheme. */
export function withoutUserInfo(value: string): string {
  const at = value.lastIndexOf("@");
  return at === -1 ? value : `…${value.slice(at)}`;
}
