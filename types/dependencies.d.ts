// What the type declarations of dependencies take for granted and nobody declares. Kept here instead of
// `skipLibCheck`, with which a type that does not resolve silently becomes `any` in our own code.

// Connect's declarations use this type of the DOM library. Node has the same `Headers`, but does not name the type
// globally, and the whole DOM library would let `window` and `document` pass for globals of a server.
type HeadersInit = NonNullable<ConstructorParameters<typeof Headers>[0]>;

// pino-pretty's declarations import it; its package does not export its own declarations to `nodenext`.
declare module "colorette" {
  export type Colorette = Record<string, (text: string | number) => string>;
}

// playwright-core's declarations name parts of pages. Tests handle them only in the browser.
type Node = object;
type HTMLElement = object;
type SVGElement = object;
type HTMLElementTagNameMap = Record<string, object>;
