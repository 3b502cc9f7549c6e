// Shows /openapi.json. No validator of somebody else's is asked, and no credentials are kept.
window.SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#api",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  docExpansion: "list",
  persistAuthorization: false,
  requestSnippetsEnabled: true,
  validatorUrl: null,
});
