/* SPDX-License-Identifier: Apache-2.0 */
#include "config/tree_read.h"

#include "config/tree_build.h"

static enum rt_status check_root(const struct rt_source *source, const struct rt_node *root,
                                 struct rt_error *err)
{
    char shown[RT_NODE_SHOWN_BYTES];
    RT_REQUIRE(root, err, RT_ERR_CONFIG, "%s: is empty: must be %s with keys", source->name,
               rt_source_language(source));
    rt_node_show(root, shown);
    RT_REQUIRE(root->kind == RT_NODE_MAPPING, err, RT_ERR_CONFIG,
               "%s:%u: the document is %s: must be a mapping", source->name, root->line, shown);
    return RT_OK;
}

enum rt_status rt_tree_read(const struct rt_source *source, struct rt_tree *out,
                            struct rt_error *err)
{
    enum rt_status status = RT_OK;
    struct rt_tree_build build = {.source = source, .tree = out, .err = err};
    *out = (struct rt_tree){.root = NULL};
    RT_TRY_GOTO(rt_source_is_json(source) ? rt_build_json(&build) : rt_build_yaml(&build));
    RT_TRY_GOTO(check_root(source, out->root, err));
    return RT_OK;
fail:
    rt_tree_free(out);
    return status;
}
