"""Which package of npm brings a program that scripts call: most often the one of its name."""

from __future__ import annotations

from vibed.classify.node_tools import COMMANDS, DEV_SERVERS, FILE_SERVERS, PARALLEL, RUN_TYPESCRIPT

_OTHERS = {
    "ng": "@angular/cli", "ngc": "@angular/compiler-cli", "tsc": "typescript", "vue-cli-service": "@vue/cli-service",
    "webpack": "webpack-cli", "svelte-kit": "@sveltejs/kit", "nuxi": "nuxt", "remix": "@remix-run/dev",
    "react-router": "@react-router/dev", "docusaurus": "@docusaurus/core", "eleventy": "@11ty/eleventy",
    "rsbuild": "@rsbuild/core", "rspack": "@rspack/cli", "craco": "@craco/craco", "tailwindcss": "@tailwindcss/cli",
    "postcss": "postcss-cli", "babel": "@babel/cli", "babel-node": "@babel/node", "swc": "@swc/cli",
    "gulp": "gulp-cli", "grunt": "grunt-cli", "preact": "preact-cli", "ionic": "@ionic/cli", "hexo": "hexo-cli",
    "quasar": "@quasar/app-vite", "stencil": "@stencil/core", "run-p": "npm-run-all2", "run-s": "npm-run-all2",
    "conc": "concurrently", "tsnd": "ts-node-dev", "dotenv": "dotenv-cli", "dotenvx": "@dotenvx/dotenvx",
    "cross-env-shell": "cross-env", "cpx": "cpx2", "cpy": "cpy-cli", "del": "del-cli", "ncc": "@vercel/ncc",
    "tspc": "ts-patch", "sequelize": "sequelize-cli", "graphql-codegen": "@graphql-codegen/cli",
    "panda": "@pandacss/dev", "unocss": "@unocss/cli", "lessc": "less", "uglifyjs": "uglify-js",
    "cleancss": "clean-css-cli", "workbox": "workbox-cli", "pm2-runtime": "pm2", "lingui": "@lingui/cli",
    "paraglide-js": "@inlang/paraglide-js", "opennextjs-cloudflare": "@opennextjs/cloudflare",
}  # fmt: skip
_NAMESAKES = frozenset(
    {
        "cross-env", "env-cmd", "rimraf", "shx", "copyfiles", "mkdirp", "ncp", "tsup", "tsdown", "unbuild",
        "microbundle", "tsc-alias", "vue-tsc", "svelte-check", "prisma", "drizzle-kit", "sequelize-cli", "typeorm",
        "knex", "node-sass", "terser", "html-minifier", "browserify", "next-sitemap", "contentlayer", "velite",
        "wait-on", "start-server-and-test", "patch-package", "husky", "lint-staged", "nodemon", "pm2", "forever",
        "only-allow",
    }
)  # fmt: skip
"""Those of a package of their own name that no table of `node_tools` has."""
_NOT_NPMS = frozenset({"bun", "bunx", "deno", "open", "xdg-open", "mkdocs", "hugo", "jekyll", "zola", "ws"})
_OF_THEIR_NAME = (_NAMESAKES | DEV_SERVERS | FILE_SERVERS | PARALLEL | RUN_TYPESCRIPT) - _NOT_NPMS


def package_of(program: str) -> str:
    """The package that brings a program; empty where that is not known."""
    return _OTHERS.get(program) or COMMANDS.get(program) or (program if program in _OF_THEIR_NAME else "")
