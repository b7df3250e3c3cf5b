/** Says to a person with a browser or curl what answers here. It has no script, and names nothing of this deployment. */
export function rootPage(methods: readonly string[]): string {
  const own = methods.filter((path) => path.startsWith("/harborforge."));
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>HarborForge Agents</title>
<style>body { font: 16px/1.5 system-ui, sans-serif; max-width: 44em; margin: 3em auto; padding: 0 1em } pre { overflow-x: auto }</style>
<h1>HarborForge Agents</h1>
<p>This service knows which AI agents are online, what each agent does, and when an exhausted agent recovers. This is its Connect
listener: it takes Connect, gRPC-Web and gRPC, in JSON or binary, over HTTP/1.1 and HTTP/2.</p>
<p>Pages: <a href="/readyz">/readyz</a> (whether it should get calls), <a href="/healthz">/healthz</a>,
<a href="/metrics">/metrics</a> (for Prometheus).</p>
<p>A call is a POST with JSON:</p>
<pre>curl -H 'content-type: application/json' -d '{}' \\
  &lt;this address&gt;/harborforge.agents.v1.AgentService/GetFleet</pre>
<p>If the service requires credentials, add <code>-H "authorization: Bearer $TOKEN"</code>. The methods:</p>
<ul>
${own.map((path) => `<li><code>${path}</code></li>`).join("\n")}
</ul>
<p>The pages of the documentation are in the folder <code>docs</code> of the program: <code>contract.md</code> has all methods and
messages, <code>services.md</code> shows how to use them, <code>operations.md</code> how to run the service.</p>
</html>
`;
}
