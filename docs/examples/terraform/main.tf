# Deploys the packaged template. How it is packaged: docs/deploying.md, "Without a checkout".

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0, < 7.0"
    }
  }
}

variable "template_url" {
  type        = string
  description = "https address of packaged.yaml in S3, in the region of the stack; it is too large to be given inline."
}

variable "workflow_ids" {
  type        = list(string)
  description = "Ids or keys of the workflows that share the work."
}

variable "parameters" {
  type        = map(string)
  description = "Other parameters of the template, for instance { AlarmEmail = \"team@example.com\" }."
  default     = {}
}

resource "aws_cloudformation_stack" "workflow_trigger" {
  name         = "unstructured-workflow-trigger"
  template_url = var.template_url
  parameters   = merge(var.parameters, { WorkflowIds = join(",", var.workflow_ids) })
  # The template makes roles without names of its own, and is expanded by AWS SAM.
  capabilities = ["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"]
}

output "source_bucket" {
  value = aws_cloudformation_stack.workflow_trigger.outputs["SourceBucket"]
}

output "api_key_secret" {
  value = aws_cloudformation_stack.workflow_trigger.outputs["ApiKeySecret"]
}
