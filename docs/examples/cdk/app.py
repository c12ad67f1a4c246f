"""Deploys the packaged template as a nested stack. How it is packaged: docs/deploying.md, "Without a checkout".

cdk deploy -c template_url=https://BUCKET.s3.amazonaws.com/packaged.yaml -c workflow_ids=ID,ID
"""

import aws_cdk as cdk

# A nested stack, not CfnInclude: the template needs the SAM transform, which CfnInclude would put on the whole app.
app = cdk.App()
stack = cdk.Stack(app, "documents")
trigger = cdk.CfnStack(
    stack,
    "WorkflowTrigger",
    template_url=app.node.try_get_context("template_url") or "https://example.s3.amazonaws.com/packaged.yaml",
    parameters={"WorkflowIds": app.node.try_get_context("workflow_ids") or "f0a1b2c3-4d5e-6f7a-8b9c-0d1e2f3a4b5c"},
)
cdk.CfnOutput(stack, "SourceBucket", value=trigger.get_att("Outputs.SourceBucket").to_string())
cdk.CfnOutput(stack, "ApiKeySecret", value=trigger.get_att("Outputs.ApiKeySecret").to_string())
app.synth()
