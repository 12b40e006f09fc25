-- The operator says in three conditions how things stand (kstatus): Stalled needs a person, Ready holds what spec asks,
-- Reconciling ends by itself. What was said of an earlier generation of spec says nothing of this one.
local function progressing(message)
  return { status = "Progressing", message = message }
end

if obj.status == nil or obj.status.conditions == nil then
  return progressing("Waiting for the Lifeboat operator")
end

local found = {}
for _, condition in ipairs(obj.status.conditions) do
  found[condition.type] = condition
end

local generation = obj.metadata.generation
local observed = obj.status.observedGeneration
if generation ~= nil and observed ~= nil and observed < generation then
  return progressing("Waiting for the Lifeboat operator to see the latest change")
end

local stalled, ready = found["Stalled"], found["Ready"]
if stalled ~= nil and stalled.status == "True" then
  return { status = "Degraded", message = stalled.message }
end
if ready == nil then
  return progressing("Waiting for the Lifeboat operator")
end
if ready.status == "True" then
  return { status = "Healthy", message = ready.message }
end
return progressing(ready.message)
