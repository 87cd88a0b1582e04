"""Packages of npm that say what a Node project is: servers, frameworks, front-end tools, what only serves
development."""

from __future__ import annotations

import re

SERVERS = frozenset(
    {
        "express", "fastify", "koa", "hono", "@hono/node-server", "@hapi/hapi", "restify", "polka", "socket.io", "ws",
        "micro", "@nestjs/core", "apollo-server", "@apollo/server", "json-server", "@feathersjs/feathers", "sails",
        "@adonisjs/core", "express-ws", "graphql-yoga", "h3", "itty-router-extras", "connect", "tinyhttp",
        "@tinyhttp/app", "moleculer-web",
    }
)  # fmt: skip
FRAMEWORKS = {
    "next": ("Next.js", "out"), "nuxt": ("Nuxt", ".output/public"), "@sveltejs/kit": ("SvelteKit", "build"),
    "@remix-run/react": ("Remix", "build/client"), "@remix-run/node": ("Remix", "build/client"),
    "@react-router/node": ("React Router", "build/client"), "@solidjs/start": ("SolidStart", ".output/public"),
    "@builder.io/qwik-city": ("Qwik City", "dist"), "@tanstack/react-start": ("TanStack Start", ".output/public"),
    "@tanstack/start": ("TanStack Start", ".output/public"), "@redwoodjs/core": ("RedwoodJS", "web/dist"),
    "blitz": ("Blitz", "out"), "@angular/ssr": ("Angular SSR", "dist/browser"),
    "@astrojs/node": ("Astro (server)", "dist/client"),
}  # fmt: skip
"""Server frameworks with a build of their own: name, and where a static export would be."""

FRONT_ENDS = {
    "vite": ("Vite", "dist"), "react-scripts": ("Create React App", "build"), "@angular/cli": ("Angular", "dist"),
    "@vue/cli-service": ("Vue CLI", "dist"), "parcel": ("Parcel", "dist"), "parcel-bundler": ("Parcel", "dist"),
    "astro": ("Astro", "dist"), "gatsby": ("Gatsby", "public"), "@11ty/eleventy": ("Eleventy", "_site"),
    "@docusaurus/core": ("Docusaurus", "build"), "vitepress": ("VitePress", ".vitepress/dist"),
    "vuepress": ("VuePress", "docs/.vuepress/dist"), "webpack": ("webpack", "dist"), "rollup": ("Rollup", "dist"),
    "esbuild": ("esbuild", "dist"), "@rsbuild/core": ("Rsbuild", "dist"), "@rspack/cli": ("Rspack", "dist"),
    "preact-cli": ("Preact CLI", "build"), "snowpack": ("Snowpack", "build"), "svelte": ("Svelte", "dist"),
    "hexo": ("Hexo", "public"), "@ionic/cli": ("Ionic", "www"), "tsup": ("tsup", "dist"),
}  # fmt: skip
"""Front-end tools: name, and the folder they build into."""

DEV_SERVERS = frozenset(
    {
        "vite", "webpack", "webpack-dev-server", "react-scripts", "next", "nuxt", "nuxi", "astro", "parcel",
        "eleventy", "@11ty/eleventy", "gatsby", "ng", "vue-cli-service", "snowpack", "browser-sync", "tailwindcss",
        "gulp", "grunt", "concurrently", "rollup", "svelte-kit", "docusaurus", "vitepress", "vuepress", "rsbuild",
        "rspack", "remix", "storybook", "esbuild", "tsc", "turbo", "nx", "lerna", "electron", "expo", "react-native",
        "hexo", "wrangler", "npm-run-all", "run-p", "run-s", "preact", "ember", "live-server", "http-server", "serve",
        "lite-server", "jest", "vitest", "bun", "bunx", "deno", "sirv", "sirv-cli", "superstatic", "five-server",
        "docsify", "craco", "react-app-rewired", "umi", "farm", "web-dev-server", "wds", "es-dev-server", "wmr", "budo",
        "elm-live",
        "ionic", "stencil", "harp", "hugo", "jekyll", "zola", "mkdocs", "open", "xdg-open", "open-cli", "opener",
        "netlify", "vercel", "firebase", "gh-pages", "surge", "postcss", "sass", "lessc", "babel", "ng-packagr",
        "quasar", "cypress", "playwright", "eslint", "prettier", "node-static", "static-server",
        "local-web-server", "ws",
    }
)  # fmt: skip
FILE_SERVERS = frozenset(
    {
        "live-server", "http-server", "serve", "lite-server", "sirv", "sirv-cli", "superstatic", "five-server",
        "docsify", "node-static", "static-server",
    }
)  # fmt: skip
RUN_TYPESCRIPT = frozenset(
    {"tsx", "ts-node", "ts-node-dev", "tsnd", "esno", "jiti", "vite-node", "swc-node", "node-dev"}
)
TAKE_A_VALUE = frozenset(
    {
        "-r", "--require", "--import", "--loader", "--experimental-loader", "-i", "--ignore", "--ignore-watch",
        "-e", "--ext", "-d", "--delay", "--signal", "--config", "-P", "--project", "--tsconfig", "-O",
        "--compiler-options", "--env-file", "-n", "--name", "-x", "--exec", "--interpreter",
    }
)  # fmt: skip
"""Options of nodemon, pm2 and what runs TypeScript whose value is not the file that they start."""
RUNNERS = frozenset(
    {
        *RUN_TYPESCRIPT,
        "node",
        "nodemon",
        "pm2",
        "pm2-runtime",
        "forever",
        "npm",
        "yarn",
        "pnpm",
        "bun",
        "sh",
        "bash",
        "cd",
    }
)
"""What starts a program of the project's own."""
PROGRAMS = frozenset(
    {
        "node", "sh", "bash", "cd", "echo", "printf", "sleep", "mkdir", "cp", "mv", "rm", "ln", "touch", "chmod", "cat",
        "ls", "test", "[", "true", "false", "export", "set", "exec", "wait", "env", "date", "grep", "sed", "awk",
        "head", "tail", "tee", "xargs", "find", "tar", "httpd", "trap", "kill", "unset", "source", ".", ":",
    }
)  # fmt: skip
"""What every template for servers brings, beside its language."""
PARALLEL = frozenset({"concurrently", "conc", "npm-run-all", "npm-run-all2", "run-p", "run-s", "wireit"})
"""What runs several scripts."""
BUILD_TOOLS = frozenset(
    {
        "vite", "webpack", "webpack-dev-server", "react-dev-utils", "parcel", "@parcel/core", "browser-sync", "esbuild",
        "rollup", "snowpack", "@rspack/core", "@rsbuild/core", "live-server", "gulp", "metalsmith", "@11ty/eleventy",
    }
)  # fmt: skip
"""What a script imports that serves or builds a front end."""
COMMANDS = {
    "fastify": "fastify-cli", "nest": "@nestjs/cli", "sails": "sails", "strapi": "@strapi/strapi", "micro": "micro",
    "json-server": "json-server", "probot": "probot", "directus": "directus", "keystone": "@keystone-6/core",
    "moleculer-runner": "moleculer", "feathers": "@feathersjs/cli", "medusa": "@medusajs/medusa", "payload": "payload",
    "adonis": "@adonisjs/cli", "mercurius": "mercurius", "platformatic": "platformatic", "wattpm": "wattpm",
    "apollo-server": "apollo-server", "graphql-yoga": "graphql-yoga", "marko-run": "@marko/run", "eik": "@eik/service",
}  # fmt: skip
"""Commands that serve, by name: the package that brings it. It is found on the path when the package is installed."""
WATCHES = re.compile(
    r"^(?:npx )?(?:webpack|rollup|esbuild|parcel|tsc|tsup|swc|babel|vite build)\b[^\n&|;]{0,300}\s(?:-w|--watch)\b"
)
"""Commands that build again at every change."""
