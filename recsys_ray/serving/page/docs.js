"use strict";
// Starts the bundled viewer on the description of this service: nothing is asked of anybody else.

document.documentElement.classList.toggle("dark-mode", matchMedia("(prefers-color-scheme: dark)").matches);

// The viewer's headings and regions lack these levels and names.
const named = () => ({
  wrapComponents: {
    operations: (Original, { React }) => (props) =>
      React.createElement(React.Fragment, null, React.createElement("h2", { className: "sr" }, "Calls"), React.createElement(Original, props)),
    InfoContainer: (Original, { React }) => (props) =>
      React.createElement("section", { "aria-label": "About this API" }, React.createElement(Original, props)),
  },
});

SwaggerUIBundle({ url: "/openapi.json", dom_id: "#api", deepLinking: false, defaultModelsExpandDepth: 0, validatorUrl: null, plugins: [named] });
